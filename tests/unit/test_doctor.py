"""What ``doctor`` finds: every rule on a fact of its own, and the facts on a real file system."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict

import pytest
from unmounting import unmount

from blockjobs.model.checkup import FINE, RULES, Finding, Level, examine_fact, worst_level
from blockjobs.model.ids import Host
from blockworker.host.config import HostConfig
from blockworker.questions import checkup
from blockworker.system import filesystem

GIB = 1 << 30
ALL = dict.fromkeys(filesystem.TRIALS, "")
GOOD = {
    "setting": {"name": "appendonly", "needed": "yes", "found": "yes", "why": "a restart would lose the registry"},
    "server": {"name": "Redis", "version": "7.0.15", "too-old": False, "cluster": False, "role": "master"},
    "default-user": {"name": "Redis", "version": "7.0.15", "fixed": "8.6.0", "refused": ""},
    "asked": {"what": "its settings", "right": "+config|get", "known": True},
    "redis": {"aof-status": "ok", "memory": 10 << 20, "maxmemory": 0,
              "machine-memory": 8 * GIB, "clients": 40, "maxclients": 10000, "hosts": 3, "slots": 6,
              "needed-clients": 119},
    "script": {"ms": 0.2},
    "write": {"ms": 0.5},
    "clock": {"ahead": 0.0},
    "unreadable": {"why": ""},
    "registry": {"incarnation": "abc"},
    "daemon": {"name": "coordinator", "alive": True, "does": "no copy starts"},
    "aside": {"daemon": "finalizer", "item": "run a", "error": ""},
    "attention": {"run": "r", "text": ""},
    "overdue": {"name": "nightly", "late": False, "text": "no run succeeded for 2h"},
    "host-aside": {"item": "claim of job a", "error": ""},
    "host": {"name": "web1", "state": "up", "slots": 2, "ours": "1", "version": "1", "patience": 15.0,
             "user": "blockjobs", "skew": 0.0, "lost": "", "unreadable": "", "since": "since noon", "strangers": ""},
    "refused-events": {"count": 3, "hours": 30, "at": "noon", "host": "web1"},
    "hanging": {"path": "", "point": "", "since": "", "about": "", "user": "blockjobs"},
    "state": {"path": "/var/lib/blockjobs/web1", "own": True, "wanted": "/var/lib/blockjobs/web1", "writable": True,
              "user": "blockjobs"},
    "read-root": {"fs": "xfs", "local": True, "size": 100 * GIB, "free": 0, "inodes": 0, "free-inodes": 0,
                  "listed": True, "user": "blockjobs"},
    "write-root": {"fs": "xfs", "local": True, "size": 100 * GIB, "free": 50 * GIB, "inodes": 1000, "free-inodes": 900,
                   "listed": True, "user": "blockjobs", "abilities": ALL},
    "restore-root": {"fs": "xfs", "local": True, "size": 100 * GIB, "free": 50 * GIB, "inodes": 0, "free-inodes": 0,
                     "listed": True, "user": "blockjobs", "abilities": ALL},
    "device": {"size": GIB, "user": "blockjobs"},
    "command": {"program": "/usr/local/sbin/freeze", "executable": True, "world-writable": False, "user": "blockjobs"},
    "tool": {"version": "7.2.4"},
    "cage": {"landlock": 7, "lack": "", "uncaged": False, "user": "blockjobs"},
}  # fmt: skip

BAD = [  # kind, what is otherwise than in GOOD, what is found, a word of what is said
    ("setting", {"found": "no"}, "error", "would lose the registry"),
    ("server", {"too-old": True, "version": "6.2"}, "error", "6.2 is too old"),
    ("server", {"cluster": True}, "error", "cluster mode"),
    ("server", {"role": "slave"}, "error", "replica"),
    ("default-user", {"refused": "EXEC"}, "error", "as the user default, who may not EXEC"),
    ("asked", {"known": False}, "warning", "its settings cannot be looked at"),
    ("redis", {"aof-status": "err"}, "error", "append-only file failed"),
    ("redis", {"maxmemory": 10 << 20}, "error", "10.0 MiB of maxmemory 10.0 MiB"),
    ("redis", {"maxmemory": 12 << 20}, "warning", "10.0 MiB of maxmemory 12.0 MiB"),
    ("redis", {"memory": 5 * GIB}, "warning", "5.0 GiB of 8.0 GiB"),
    ("redis", {"clients": 9900}, "error", "9900 of 10000"),
    ("redis", {"hosts": 800, "slots": 1600, "needed-clients": 18450}, "warning", "800 hosts"),
    ("script", {"ms": 30.0}, "warning", "30.0 ms"),
    ("write", {"ms": 167.0}, "warning", "disk of its own"),
    ("clock", {"ahead": -4.0}, "warning", "-4.0 s"),
    ("unreadable", {"why": "there is no 'spec'"}, "error", "left out everywhere: there is no 'spec'"),
    ("registry", {"incarnation": ""}, "note", "nobody has used it"),
    ("daemon", {"alive": False}, "error", "no copy starts until it does"),
    ("aside", {"error": "KeyError: 'rev'"}, "error", "run a is put aside, and tried again ever later: KeyError: 'rev'"),
    ("overdue", {"late": True}, "warning", "no run succeeded for 2h blockjobs history nightly; or, if its run file"),
    ("attention", {"text": "an error stopped job a"}, "warning", "an error stopped job a blockjobs show r"),
    ("host-aside", {"error": "ValueError: x"}, "error", "claim of job a is put aside, and tried again ever later"),
    ("host", {"unreadable": "what host web1 tells is damaged"}, "error", "damaged install the same version everywhere"),
    ("host", {"state": "left"}, "note", "has left"),
    ("host", {"state": "down"}, "error", "no heartbeat since noon"),
    ("host", {"state": "down", "missing": "its copy worker does not beat", "worker": "copy"}, "error",
     "down since noon: its copy worker does not beat start blockjobs-worker@copy there"),
    ("host", {"lost": "host web1 has carried out decision 9"}, "error", "decision 9"),
    ("host", {"silent": True}, "error", "did not answer within 15 s"),
    ("host", {"failed": "looking took longer than 10 s"}, "error", "longer than 10 s"),
    ("host", {"strangers": "0123"}, "error", "under this name: 0123"),
    ("host", {"version": "0.9"}, "warning", "version 0.9, here is 1"),
    ("host", {"skew": 3.0}, "warning", "+3.0 s"),
    ("refused-events", {"hours": 1.0}, "error", "3 events that no worker of this host writes were refused, the last"),
    ("hanging", {"path": "/b/x", "point": "/b", "since": "since noon", "about": "OPEN"}, "error",
     "it hangs since noon: OPEN mend or thaw the file system mounted on /b"),
    ("state", {"hangs": True}, "error", "hangs"),
    ("state", {"error": "/var/lib/blockjobs/web1: Permission denied"}, "error", "Permission denied"),
    ("state", {"writable": False}, "error", "cannot write /var/lib/blockjobs/web1"),
    ("state", {"path": "", "own": False}, "warning", "is forgotten at each restart"),
    ("state", {"path": "/backup/.blockjobs", "own": False}, "note", "lie in /backup/.blockjobs"),
    ("read-root", {"error": "No such file or directory"}, "error", "No such file"),
    ("read-root", {"hangs": True}, "error", "hangs"),
    ("read-root", {"listed": False}, "error", "blockjobs cannot read"),
    ("write-root", {"hangs": True}, "error", "hangs"),
    ("write-root", {"error": "x"}, "error", "host.toml"),
    ("write-root", {"unowned": 2}, "warning", "sweep --dry-run"),
    ("write-root", {"listed": False}, "error", "blockjobs cannot read"),
    ("write-root", {"abilities": {**ALL, "write": "Permission denied", "flock": "too"}}, "error", "Permission denied"),
    ("write-root", {"free": 1 << 20}, "error", "1.0 MiB are free"),
    ("write-root", {"free": 2 * GIB}, "warning", "2.0 GiB of 100.0 GiB"),
    ("write-root", {"free-inodes": 3}, "warning", "3 of 1000 inodes"),
    ("write-root", {"local": False, "fs": "nfs"}, "note", "nfs is no local"),
    *(("write-root", {"abilities": {**ALL, name: "EOPNOTSUPP"}},
       "error" if name in ("flock", "fsync-directory") else "note", f"no {name}: EOPNOTSUPP")
      for name in ALL if name != "write"),
    ("restore-root", {"hangs": True}, "error", "hangs"),
    ("restore-root", {"error": "x"}, "error", "host.toml"),
    ("restore-root", {"listed": False}, "error", "blockjobs cannot read"),
    ("restore-root", {"abilities": {**ALL, "write": "Permission denied"}}, "warning", "before the day of the restore"),
    ("device", {"hangs": True}, "error", "hangs"),
    ("device", {"error": "Permission denied"}, "warning", "group disk"),
    ("command", {"hangs": True}, "error", "hangs"),
    ("command", {"error": "No such file or directory"}, "error", "freeze: No such file"),
    ("command", {"executable": False}, "error", "may execute"),
    ("command", {"world-writable": True}, "error", "written by everybody"),
    ("tool", {"version": ""}, "note", "qcow2"),
    ("cage", {"lack": "no Landlock", "uncaged": True}, "warning", "an image may read any file of user blockjobs"),
    ("cage", {"lack": "no Landlock"}, "note", "the kernel has no Landlock: images in qcow2 and vmdk are refused"),
    ("cage", {"uncaged": True}, "note", "is not needed"),
]  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_a_thing_that_is_as_it_should_be_is_ok_in_one_line(kind):
    (finding,) = examine_fact(kind, "it", GOOD[kind])
    assert (finding.level, finding.advice) == (Level.OK, "")


@pytest.mark.parametrize(("kind", "change", "level", "said"), BAD, ids=[f"{c[0]}: {c[3]}" for c in BAD])
def test_each_fault_is_found_with_what_to_do(kind, change, level, said):
    findings = [each for each in examine_fact(kind, "it", GOOD[kind] | change) if each.level is not Level.OK]
    (finding,) = findings
    assert finding.level == level
    assert said in f"{finding.text} {finding.advice}"
    assert finding.advice


def test_every_rule_has_a_case():
    covered = {(kind, id(rule)) for kind, change, _, _ in BAD for rule in RULES[kind] if rule.when(GOOD[kind] | change)}
    assert covered == {(kind, id(rule)) for kind, rules in RULES.items() for rule in rules}
    assert set(FINE) == set(RULES) == set(GOOD)


def test_the_worst_of_all_findings_counts():
    levels = [Finding(level, "", "") for level in (Level.NOTE, Level.ERROR, Level.OK)]
    assert worst_level(levels) is Level.ERROR
    assert worst_level([]) is Level.OK


@pytest.fixture
def config(tmp_path):
    for name in ("images", "backup"):
        (tmp_path / name).mkdir()
    good, open_ = tmp_path / "good", tmp_path / "open"
    for program, mode in ((good, 0o755), (open_, 0o777)):
        program.write_text("#!/bin/sh\n")
        program.chmod(mode)
    return HostConfig(
        name=Host("web1"), read_roots=(str(tmp_path / "images"),), write_roots=(str(tmp_path / "backup"),),
        restore_roots=(str(tmp_path / "images"),), devices=("/dev/null", "/dev/nowhere"),
        commands={"good": (str(good), "--fast"), "open": (str(open_),), "gone": (str(tmp_path / "gone"),)},
    )  # fmt: skip


def test_a_host_looks_at_all_of_its_configuration_and_leaves_nothing(config):
    found = checkup.inspect_host(config)
    assert {"machine", "version", "clock", "user", "slots"} <= set(found)
    looks = {(each["kind"], each["name"].rpartition("/")[2]): each for each in found["looks"]}
    assert looks["write-root", "backup"]["abilities"]["write"] == ""
    assert looks["restore-root", "images"]["abilities"]["write"] == ""
    assert set(looks["write-root", "backup"]["abilities"]) == set(filesystem.TRIALS)
    assert looks["write-root", "backup"]["free"] > 0
    assert "abilities" not in looks["read-root", "images"], "nothing is written where nothing may be"
    assert "a block device was expected" in looks["device", "null"]["error"]
    assert "does not exist" in looks["device", "nowhere"]["error"]
    assert looks["command", "good"] == {"kind": "command", "name": "good", "program": config.commands["good"][0],
                                        "executable": True, "world-writable": False}  # fmt: skip
    assert looks["command", "open"]["world-writable"]
    assert "No such file" in looks["command", "gone"]["error"]
    assert {("tool", name) for name in checkup.TOOLS} <= set(looks)
    for root in (*config.read_roots, *config.write_roots):
        assert os.listdir(root) == []
    for each in found["looks"]:
        assert list(examine_fact(each["kind"], "it", {**each, "user": found["user"]}))


def test_a_path_that_hangs_is_named_and_the_others_are_seen(config, monkeypatch):
    """The control of the deadline: the same look with nothing that hangs is over at once."""
    monkeypatch.setattr(checkup, "A_PATH", 0.5)
    gate, opened = os.pipe()
    monkeypatch.setattr(checkup, "_inspect_tool", lambda _: {"version": os.read(gate, 1).decode()})
    try:
        looks = {each["name"]: each for each in checkup.host_findings(config)["looks"]}
        assert looks["qemu-img"] == {"kind": "tool", "name": "qemu-img", "hangs": True}
        assert looks[config.write_roots[0]]["abilities"]["write"] == ""
    finally:
        os.write(opened, b"xx")


def test_a_look_that_takes_too_long_is_given_up(config, monkeypatch):
    monkeypatch.setattr(checkup, "LIMIT", 0.001)
    found = checkup.inspect_host(config)
    assert "took longer" in found["failed"]
    (finding,) = examine_fact("host", "web1", GOOD["host"] | {"failed": found["failed"]})
    assert finding.level is Level.ERROR


def test_what_a_killed_trial_left_is_removed_by_a_later_one(tmp_path):
    old, new, theirs = (tmp_path / name for name in (f"{filesystem.PREFIX}old", f"{filesystem.PREFIX}new", ".other"))
    for path in (old, new, theirs):
        path.touch()
    for path in (old, theirs):
        os.utime(path, (0, 0))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    filesystem.try_abilities(fd)
    os.close(fd)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([new.name, theirs.name])


def test_a_directory_that_cannot_be_written_is_said_so(tmp_path):
    """A read-only bind mount would need a mount: /proc is a directory that nobody writes to."""
    fd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert filesystem.try_abilities(fd)["write"]
        assert filesystem.filesystem_kind(fd) == ("0x9fa0", False)
    finally:
        os.close(fd)


MAKE = {"xfs": ("mkfs.xfs", "-q"), "btrfs": ("mkfs.btrfs", "-q"), "ext4": ("mke2fs", "-q", "-t", "ext4")}
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


@pytest.fixture
def mounted(request, tmp_path):
    """A file system of its own, on a loop device."""
    make = MAKE[request.param]
    if os.geteuid() != 0 or shutil.which(make[0], path=PATH) is None:
        pytest.skip(f"needs root and {make[0]}")
    image, place = tmp_path / "disk", tmp_path / "mounted"
    image.touch()
    os.truncate(image, 400 << 20)
    place.mkdir()
    env = {**os.environ, "PATH": PATH}
    subprocess.run([*make, str(image)], check=True, env=env, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True).returncode:
        pytest.skip("loop mounts are not possible here")
    try:
        yield request.param, place
    finally:
        unmount(place)


@pytest.mark.parametrize("mounted", MAKE, indirect=True)
def test_real_file_systems_are_told_apart_by_what_they_can(mounted):
    kind, place = mounted
    config = HostConfig(name=Host("web1"), read_roots=(), write_roots=(str(place),))
    (root,) = (each for each in checkup.host_findings(config)["looks"] if each["kind"] == "write-root")
    assert (root["fs"], root["local"]) == (kind, True)
    assert {name for name, why in root["abilities"].items() if why} == ({"reflink"} if kind == "ext4" else set())
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    (root,) = (each for each in checkup.host_findings(config)["looks"] if each["kind"] == "write-root")
    (finding,) = (
        each for each in examine_fact("write-root", "it", {**root, "user": "me"}) if each.level is Level.ERROR
    )
    assert "Read-only file system" in finding.text


def test_the_configuration_travels_whole(config):
    keys = asdict(config)
    assert set(keys) >= {"name", "read_roots", "write_roots", "devices", "commands"}
