"""What `up` decides before it starts anything: hosts, their files, whose directory it is."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import pytest

from blockjobs.cli import local, up
from blockjobs.model.errors import BadInput, Refused


def test_without_names_it_is_one_host_named_after_the_machine(tmp_path):
    (host,) = local.local_hosts((), tmp_path)
    assert (host.name, host.root) == (local.machine_name(), tmp_path.resolve())


def test_every_host_may_have_a_root_of_its_own(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to("b")
    hosts = local.local_hosts(("a", f"b={tmp_path}/b", f"c={tmp_path}/link"), tmp_path)
    assert [(host.name, host.root) for host in hosts] == [
        ("a", tmp_path.resolve()),
        ("b", tmp_path.resolve() / "b"),
        ("c", tmp_path.resolve() / "b"),
    ]


@pytest.mark.parametrize(
    ("named", "said"),
    [(("a", "a"), "given twice"), (("a b",), "invalid host name 'a b'"), (("",), "invalid host name ''"),
     (("a=/nonexistent",), "root /nonexistent of host 'a' is not there"), (("a=/dev/null",), "is not there")],
    ids=["twice", "bad-name", "no-name", "no-root", "root-a-file"],
)  # fmt: skip
def test_bad_hosts_are_refused_before_anything_starts(tmp_path, named, said):
    with pytest.raises(BadInput, match=said):
        local.local_hosts(named, tmp_path)


def test_a_host_file_keeps_what_its_owner_wrote(tmp_path):
    root = tmp_path / 'a "quoted" ünicode root'
    root.mkdir()
    (host,) = local.local_hosts((f"a={root}",), tmp_path)
    path = local.write_host(tmp_path, host, 2)
    fresh = {"name": "a", "slots": 2, "read-roots": [str(root)], "write-roots": [str(root)],
             "allow-overwrite": False, "allow-in-place": False, "devices": [],
             "state": str(tmp_path / "state" / "a")}  # fmt: skip
    assert tomllib.loads(path.read_text()) == fresh
    path.write_text("allow-overwrite = true\nslots = 9\n")
    local.write_host(tmp_path, host, 3)
    assert tomllib.loads(path.read_text()) == fresh | {"allow-overwrite": True, "slots": 3}


def test_up_may_allow_overwriting_and_it_stays_allowed(tmp_path):
    (host,) = local.local_hosts((f"a={tmp_path}",), tmp_path)
    for asked in (True, False):
        path = local.write_host(tmp_path, host, 2, allow_overwrite=asked)
        assert tomllib.loads(path.read_text())["allow-overwrite"] is True


def test_up_may_allow_devices_to_be_written_and_adds_to_those_it_knows(tmp_path):
    (host,) = local.local_hosts((f"a={tmp_path}",), tmp_path)
    local.write_host(tmp_path, host, 2, allow_in_place=True, devices=["/dev/x"])
    keys = tomllib.loads(local.write_host(tmp_path, host, 2, devices=["/dev/x", "/dev/y"]).read_text())
    assert (keys["allow-in-place"], keys["devices"]) == (True, ["/dev/x", "/dev/y"])


def test_a_second_up_is_refused_and_told_who_runs(tmp_path):
    refused = pytest.raises(Refused, match=rf"another .* runs in .* \(process {os.getpid()}\)")
    with up.locked_directory(tmp_path), refused, up.locked_directory(tmp_path):
        pass
    with up.locked_directory(tmp_path):
        pass


HEIR = "import os, sys, time; print(flush=True); sys.stdin.read(); os._exit(0)"


def test_what_a_killed_up_left_is_waited_for(tmp_path):
    lock = os.open(tmp_path / "up.lock", os.O_RDWR | os.O_CREAT)
    assert up._try_lock(lock)
    os.write(lock, b"4194304")  # no process has this number: the largest is one less
    with subprocess.Popen(
        [sys.executable, "-c", HEIR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lock]
    ) as heir:
        os.close(lock)
        heir.stdout.readline()
        lock = os.open(tmp_path / "up.lock", os.O_RDWR)
        assert not up._try_lock(lock)
        os.close(lock)
        heir.stdin.close()
        with up.locked_directory(tmp_path):
            assert (tmp_path / "up.lock").read_text() == str(os.getpid())


def test_the_url_stands_in_the_directory_as_long_as_it_runs(tmp_path):
    with up.written_env(tmp_path, "unix:///a?db=0"):
        lines = (tmp_path / "env").read_text().splitlines()
        assert lines == ["BLOCKJOBS_REDIS_URL=unix:///a?db=0", f"BLOCKJOBS_QMP={tmp_path}/qmp.sock"]
    assert not (tmp_path / "env").exists()


def test_what_talks_is_stopped_before_what_is_talked_to(tmp_path):
    (tmp_path / "hosts").mkdir()
    hosts = local.local_hosts(("a", "b"), tmp_path)
    waves = {program.name: program.wave for program in up.local_programs(tmp_path, "unix:///x", hosts, 2, 5555)}
    order = ["copy@a", "copy@b", "steps@a", "steps@b", "finalizer", "coordinator", "flower"]
    assert sorted(waves, key=lambda name: (waves[name], name)) == order
    assert max(waves.values()) < up.SERVER
