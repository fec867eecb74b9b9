"""Volumes with a name: by the command line, in a run file, as QMP's nodes; one and the same."""

from __future__ import annotations

import json

import pytest
from commands import run_command

RUN = """\
version: 1
name: named
jobs:
  - {{id: one, source: a, target: b, overwrite: true}}
  - {{id: two, source: {source}, target: "a:{root}/new-{{run}}.img"}}
"""


@pytest.fixture
def cli(fleet, images):
    def run(*words, fails=False):
        done = run_command(*words, url=fleet.server.url, cwd=images)
        assert (done.returncode == 2) is fails, done.stderr
        return (done.stderr if fails else done.stdout).strip()

    return run


def test_a_name_is_given_listed_used_by_qmp_and_forgotten(cli, monitor, images):
    cli("volumes", "add", "root", f"a:{images}/a.img")
    cli("volumes", "add", "sink", '{"host": "a", "driver": "null-co", "size": 4194304}')
    found = {each["node-name"]: each for each in json.loads(cli("volumes", "list", "--json"))}
    assert found["root"]["volume"] == f"a:{images}/a.img"
    assert {"a", "b", "root", "sink"} <= {node["node-name"] for node in monitor.ok("query-named-block-nodes")}
    monitor.backup("j", "root", "sink", speed=1)
    assert cli("volumes", "remove", "sink", fails=True) == (
        "blockjobs: Node 'sink' is busy: block device is in use by block job: backup"
    )
    monitor.ok("job-cancel", id="j")
    monitor.until_status("j", "null")
    for name in ("root", "sink"):
        cli("volumes", "remove", name)
    assert cli("volumes", "remove", "root", fails=True) == "blockjobs: Failed to find node with node-name='root'"


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("a:b", "a:/x"), "invalid name 'a:b': a letter, then letters, digits, '.', '-' and '_' were expected"),
        (("x", "relative"), "volume 'relative': 'HOST:/PATH' was expected"),
        (("x", "{"), "a JSON object was expected"),
        (("x", '{"host": "a", "driver": "nope"}'), "Parameter 'driver' does not accept value 'nope'"),
        (("a", "a:/x"), "Duplicate nodes with node-name='a'"),
    ],
)
def test_a_bad_name_or_volume_is_refused(cli, words, refusal):
    assert cli("volumes", "add", *words, fails=True).endswith(refusal)


def test_a_run_file_takes_names(cli, monitor, images):
    file = images / "run.yaml"
    file.write_text(RUN.format(source="c", root=images))
    cli("run", file)
    assert (images / "a.img").read_bytes() == (images / "b.img").read_bytes()
    (made,) = images.glob("new-*.img")
    assert made.read_bytes() == (images / "c.img").read_bytes()


def test_a_mirror_takes_names(cli, monitor, images):
    cli("mirror", "c", "e", "--overwrite", "--detach", "--id", "follow", "--auto-dismiss")
    monitor.until("BLOCK_JOB_READY", "follow")
    cli("complete", "follow")
    monitor.until_status("follow", "null")
    assert (images / "c.img").read_bytes() == (images / "e.img").read_bytes()


def test_a_name_that_nobody_gave_is_refused_with_its_line(cli, images):
    file = images / "run.yaml"
    file.write_text(RUN.format(source="nobody", root=images))
    assert cli("run", file, fails=True) == (
        f"blockjobs: {file}:5: jobs[1].source: no volume is named 'nobody'; "
        "'HOST:/PATH' or a name of `volumes list` was expected"
    )


def test_backup_takes_names_and_a_file_of_that_name_by_its_path(cli, images):
    cli("backup", "c", "d", "--overwrite")
    assert (images / "c.img").read_bytes() == (images / "d.img").read_bytes()
    (images / "a").write_bytes(b"a file named as a node is")
    cli("backup", "./a", "./copy.img")
    assert (images / "copy.img").read_bytes() == (images / "a").read_bytes()
