"""``plan``: it changes nothing, and what it says is what the run then does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import count

import pytest
from fleet import MIB, Fleet
from puppets import dump

from blockjobs.cli import main

NUMBERS = count()
CHANGING = ("card", "bj:daemons", "bj:hosts", "bj:clock")  # what beats by itself


@pytest.fixture(scope="module")
def four_hosts(tmp_path_factory):
    """A fleet of its own: what other stories have begun is not to end while two states of it are compared."""
    fleet = Fleet(tmp_path_factory.mktemp("plan"), ["a", "b"])
    yield fleet
    fleet.close()


@pytest.fixture
def command(fleet, monkeypatch, capfd):
    monkeypatch.setenv("BLOCKJOBS_REDIS_URL", fleet.server.url)

    def run(*words):
        code = main.run_command_guarded(lambda: main.cli.main([str(word) for word in words], standalone_mode=False))
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def night(fleet, tmp_path):
    """A run file over two hosts: a grouped transaction by pattern, a single job; images with holes."""
    name = f"night{next(NUMBERS)}"
    for host, images in (("a", ("one", "two")), ("b", ("one",))):
        (fleet.root(host) / name).mkdir()
        for image in images:
            path = fleet.image(host, f"{name}/{image}.img", 3)
            with path.open("r+b") as file:
                file.truncate(16 * MIB)  # a hole behind the data
                file.seek(20 * MIB)
                file.write(os.urandom(5000))
    path = tmp_path / "night.yaml"
    path.write_text(f"""\
version: 1
name: {name}
transactions:
- {{name: pattern, hosts: a, sources: ["{fleet.root("a")}/{name}/*.img"], target: "{fleet.root("a")}/{{run}}/{{name}}"}}
- {{name: single, jobs: [{{id: b, source: "b:{fleet.root("b")}/{name}/one.img", target: "b:{fleet.root("b")}/{{run}}/x"}}]}}
""")  # noqa: E501 - a flow mapping is one line
    return path


def settled(fleet: Fleet) -> dict[str, object]:
    """Once Celery is quiet: every key but what changes by itself, with its value; every file of every host, its size
    and its times."""
    fleet.until_quiet()
    values = {key: value for key, value in dump(fleet.client).items() if not any(word in key for word in CHANGING)}
    trees = {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns, path.lstat().st_ino)
        for host in fleet.hosts for path in fleet.root(host).rglob("*")
    }  # fmt: skip
    return values | trees


def test_it_changes_nothing_and_its_bytes_are_those_that_the_run_reads(fleet, command, night):
    before = settled(fleet)
    code, out, err = command("plan", night, "--json")
    assert (code, err) == (0, "")
    assert settled(fleet) == before
    told = json.loads(out)
    assert [job["problems"] for job in told["jobs"]] == [[], [], []]
    assert told["seconds"] is None

    code, _, err = command("run", night)
    assert code == 0, err
    run = fleet.registry.views.runs(limit=1)[0].id
    read = {view.id.removeprefix(f"{run}."): view.bytes["read"] for view in fleet.jobs(run)}
    said = {job["id"].partition("Z.")[2]: job["bytes"] for job in told["jobs"]}
    assert said.keys() == read.keys() == {"a-one", "a-two", "b"}
    for name, amount in read.items():
        assert abs(said[name] - amount) <= amount / 100

    told = json.loads(command("plan", night, "--json")[1])  # now there is one to learn from
    rate = {view.id.removeprefix(f"{run}."): view.bytes["read"] / view.elapsed for view in fleet.jobs(run)}
    for job in told["jobs"]:
        name = job["id"].partition("Z.")[2]
        assert job["seconds"] == pytest.approx(said[name] / rate[name], abs=0.1)
    assert told["seconds"] == max(job["seconds"] for job in told["jobs"])


def test_it_says_what_stands_in_the_way(fleet, command, night):
    text = night.read_text().replace("{run}/x", "there.img").replace('/*.img"]', '/*.img", /etc/passwd]')
    night.write_text(text)
    (fleet.root("b") / "there.img").write_bytes(b"x")
    code, out, err = command("plan", night)
    assert (code, err) == (1, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert f"target b:{fleet.root('b')}/there.img exists" in lines["b"]
    assert "/etc/passwd is outside the read roots of host a" in lines["a-passwd"]
    assert out.splitlines()[-1].endswith("; something stands in the way of 2 jobs")
    (fleet.root("b") / "there.img").unlink()


def test_a_running_job_is_a_conflict_and_what_it_owes_is_not_free(fleet, command, night, tmp_path):
    slow = tmp_path / "slow.yaml"
    source = next(fleet.root("b").glob("night*/one.img"))
    slow.write_text(f"""\
version: 1
name: slow
jobs: [{{id: s, speed: 100kB, source: "b:{source}", target: "b:{fleet.root("b")}/slow.img"}}]
""")
    assert command("run", slow, "--detach")[0] == 0
    run = fleet.registry.views.runs(limit=1)[0].id
    try:
        fleet.seq = "0"
        fleet.until("ATTEMPT_CLAIMED", f"{run}.s")
        code, out, _ = command("plan", slow, "--json")
        told = json.loads(out)
        (job,) = told["jobs"]
        assert code == 1
        assert f"Node 'b:{fleet.root('b')}/slow.img' is busy: block device is in use by" in job["problems"][0]
        assert told["unfinished"] == [run]
        about = os.statvfs(fleet.root("b"))
        owed = about.f_bavail * about.f_frsize - job["free"]
        assert owed > 5 * MIB  # of 20 MiB, less what is written already; others use this disk, too
    finally:
        command("cancel", run)
        command("wait", run, "--timeout", "60")


def test_sigterm_may_cancel_the_run(fleet, night, tmp_path):
    argv = [
        sys.executable,
        "-m",
        "blockjobs",
        "run",
        str(night),
        "--on-term",
        "cancel",
        "--set",
        "defaults.speed=100kB",
    ]
    env = os.environ | {"BLOCKJOBS_REDIS_URL": fleet.server.url}
    fleet.seq = fleet.registry.events.last()
    with subprocess.Popen(argv, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        run = fleet.until("ATTEMPT_CLAIMED").run
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert f"SIGTERM: run {run} is cancelled" in err
    assert f"run {run} cancelled after" in err
    view = fleet.registry.views.run(run)
    assert (view.open, view.cancelled) == (0, 3)


def test_what_a_pattern_leaves_out_is_named_by_plan_run_and_show_and_counts(fleet, command, night):
    """A symlink, a directory and a name that is no UTF-8 beside the images of host a."""
    images = fleet.root("a") / night_name(night)
    (images / "link.img").symlink_to("one.img")
    (images / "dir.img").mkdir()
    with open(os.fsencode(images) + b"/\xff.img", "wb"):
        pass
    odd = ["dir.img: it is a directory", "link.img: it is a symlink", "\ufffd.img: no job can be given such a name"]
    named = [f"{images}/{each}" for each in odd]
    _, out, _ = command("plan", night)
    assert all(f"skipped: a: {each}" in out for each in named), out

    code, out, err = command("run", night)
    run = fleet.registry.views.runs(limit=1)[0].id
    assert code == 1, err
    assert f"run {run}: 3 jobs on 2 hosts, 3 skipped" in out
    assert all(f"a skipped: {each}" in err for each in named), err
    _, out, _ = command("show", run)
    assert all(f"skipped of transaction pattern: a: {each}" in out for each in named), out
    assert {view.id.removeprefix(f"{run}."): view.ret for view in fleet.jobs(run)} == {"a-one": 0, "a-two": 0, "b": 0}


def night_name(night):
    return next(line.removeprefix("name: ") for line in night.read_text().splitlines() if line.startswith("name: "))
