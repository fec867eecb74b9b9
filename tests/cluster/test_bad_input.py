"""Bad input as a user gives it: one line that names what was wrong and what was expected, and nothing is left.

Refused at submit: exit 2, and the registry is as it was.  Refused by the host: the job fails, exit 1, and the disk is
as it was.  The commands are the real ones; most run in this process, for time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from fleet import DEADLINE, MIB, Fleet

from blockjobs.cli.main import cli, guarded
from blockjobs.server import Server
from blockjobs.settings import URL
from blockjobs.store.connection import connect

SECRET = "S3CRET"  # noqa: S105 - what must never be shown
VOLATILE = (b":card", b"bj:daemons", b"bj:hosts", b"bj:events", b"bj:due", b":wake", b"bj:celery")  # beats and bells
_numbers = count(1)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def line(self, code: int, *words: str) -> str:
        """The one line on stderr, which has these words."""
        lines = self.err.splitlines()
        assert (self.code, len(lines)) == (code, 1), self
        for word in words:
            assert word in lines[0], self
        assert lines[0].isprintable()
        assert "Traceback" not in self.err
        assert SECRET not in self.out + self.err
        return lines[0]

    def refused(self, *words: str, code: int = 2) -> None:
        assert self.line(code, *words).startswith("blockjobs: ")
        assert not self.out, self


@dataclass(frozen=True)
class Site:
    """Host ``a`` with one of each kind of file; host ``d`` is dying meanwhile."""

    fleet: Fleet
    root: Path
    say: Callable[..., Said]
    down_since: str

    def path(self, text: str) -> str:
        return text.replace("ROOT", str(self.root))

    def file(self, *jobs: dict[str, object], **keys: object) -> Path:
        """A run file, beside the roots."""
        path = self.fleet.place / "run.yaml"
        run = {"version": 1, "name": f"bad{next(_numbers)}", "jobs": list(jobs), **keys}
        path.write_text(self.path(json.dumps(run)))
        return path

    def start(self, source: object, target: object, **keys: object) -> Said:
        return self.say("run", self.file({"id": "j", "source": source, "target": target, **keys}))

    def good(self, target: str = "a:ROOT/backup/good.img") -> None:
        """What was to be backed up can be, under a name that was refused before."""
        said = self.start("a:ROOT/disk.img", target)
        assert (said.code, said.err) == (0, ""), said
        path = Path(self.path(target.removeprefix("a:")))
        assert path.read_bytes() == (self.root / "disk.img").read_bytes()
        for published in path.parent.glob(f"{path.name}*"):
            published.unlink()

    def disks(self) -> dict[str, tuple[int, ...]]:
        """Everything on every disk, but for the journals' folder: kind, size, links, inode and times of each."""
        return {
            str(path): (st.st_mode, st.st_nlink, st.st_ino, 0 if stat.S_ISDIR(st.st_mode) else st.st_mtime_ns)
            for host in self.fleet.hosts
            for path in sorted(self.fleet.root(host).rglob("*"))
            if ".blockjobs" not in path.parts and (st := path.lstat())
        }

    def registry(self) -> dict[bytes, bytes]:
        """Every key but the volatile ones; of the events the newest one of a run."""
        client = self.fleet.client
        names = [name for name in client.scan_iter("bj:*") if not any(part in name for part in VOLATILE)]
        newest = next((seq for seq, fields in client.xrevrange("bj:events", count=50) if fields.get(b"run")), b"")
        return {b"bj:events": newest, **{name: client.dump(name) for name in sorted(names)}}


@pytest.fixture(scope="module")
def world(session_fleet: Fleet) -> Iterator[tuple[Fleet, Path, str]]:
    fleet = session_fleet
    for name, process in fleet.processes.items():
        if process.poll() is not None:
            fleet.start(name)
    fleet.await_up(fleet.hosts)
    fleet.seq = since = fleet.registry.events.last()
    for name in ("steps@d", "copy@d"):  # it takes its time to be found dead
        fleet.kill(name)
    root = fleet.root("a") / "bad"
    (root / "backup").mkdir(parents=True)
    (root / "dir").mkdir()
    (root / "disk.img").write_bytes(os.urandom(3 * MIB - 5))
    (root / "there.img").write_bytes(b"precious")
    os.link(root / "disk.img", root / "twin.img")
    (root / "link.img").symlink_to("disk.img")
    (root / "away").symlink_to("backup")
    os.mkfifo(root / "fifo")
    place = os.getcwd()
    os.chdir(root)  # a socket's name may be 107 bytes long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.chdir(place)
    yield fleet, root, since
    shutil.rmtree(root)
    fleet.seq = since
    fleet.until("HOST_DOWN", "d")  # else it may be judged so under the next story
    fleet.start("steps@d")
    fleet.start("copy@d")
    fleet.until("HOST_UP", "d")


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Said]]:
    """Call the command line; it has to end in time."""

    def too_late(number: int, frame: object) -> None:
        raise AssertionError(f"no end within {DEADLINE:.0f} s: {capfd.readouterr()}")

    def say(*arguments: object) -> Said:
        capfd.readouterr()
        words = [str(argument) for argument in arguments]
        signal.setitimer(signal.ITIMER_REAL, DEADLINE)
        try:
            code = guarded(lambda: cli.main(words, prog_name="blockjobs", standalone_mode=False))
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return Said(code, *capfd.readouterr())

    before = signal.signal(signal.SIGALRM, too_late)
    yield say
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def site(world: tuple[Fleet, Path, str], say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> Site:
    fleet, root, since = world
    monkeypatch.setenv(URL, fleet.server.url)
    return Site(fleet, root, say, since)


# --- what only the host can see: the job fails ----------------------------------------------------------

DISK, FREE = "a:ROOT/disk.img", "a:ROOT/backup/new.img"
DEVICE = {"driver": "host_device", "host": "a", "filename": "/dev/none"}
NO_SPACE = {"driver": "null-co", "host": "a", "size": 8 << 40}
FAILS: dict[str, tuple[object, str, dict[str, object], str]] = {
    "missing source":       ("a:ROOT/no.img", FREE, {}, "source ROOT/no.img does not exist on host a"),
    "source is a dir":      ("a:ROOT/dir", FREE, {}, "source ROOT/dir is a directory: a regular file was expected"),
    "source is a FIFO":     ("a:ROOT/fifo", FREE, {}, "source ROOT/fifo is a FIFO: a regular file was expected"),
    "source is a socket":   ("a:ROOT/socket", FREE, {}, "source ROOT/socket is a socket: a regular file was expected"),
    "source is below one":  ("a:ROOT/disk.img/x", FREE, {}, "source ROOT/disk.img/x: a part of it is not a directory"),
    "source is a link":     ("a:ROOT/link.img", FREE, {}, "source ROOT/link.img is or lies behind a symlink"),
    "source behind a link": ("a:ROOT/away/disk.img", FREE, {}, "away/disk.img is or lies behind a symlink: a path"),
    "source outside":       ("a:/etc/passwd", FREE, {}, "/etc/passwd is outside the read roots of host a ("),
    "source in /proc":      ("a:/proc/self/fd/0", FREE, {}, "/proc/self/fd/0 is outside the read roots of host a ("),
    "device not allowed":   ({"driver": "host_device", "host": "a", "filename": "/dev/zero"}, FREE, {},
                             "/dev/zero is not in the devices of host a (none)"),
    "device not writable":  (DISK, "a:/dev/none", {"in-place": True},
                             "host a does not allow devices to be written (/dev/none)"),
    "restore of no backup":  (DISK, FREE, {"type": "restore"}, "disk.img.manifest.json does not exist on host a"),
    "restore of a node":    (DEVICE, FREE, {"type": "restore"}, "the file of a published image was expected"),
    "target exists":        (DISK, "a:ROOT/there.img", {}, "target ROOT/there.img exists already and 'overwrite' was"),
    "overwrite forbidden":  (DISK, "a:ROOT/there.img", {"overwrite": True},
                             "target ROOT/there.img exists already and host a does not allow overwriting"),
    "target is a dir":      (DISK, "a:ROOT/dir", {"overwrite": True}, "target ROOT/dir exists already and is a"),
    "target is a FIFO":     (DISK, "a:ROOT/fifo", {}, "target ROOT/fifo exists already and is a FIFO"),
    "target is a link":     (DISK, "a:ROOT/link.img", {}, "target ROOT/link.img exists already and is a symlink"),
    "target hard-linked":   (DISK, "a:ROOT/twin.img", {}, "ROOT/twin.img is the source itself, or a hard link of it"),
    "hard link, overwrite": (DISK, "a:ROOT/twin.img", {"overwrite": True}, "is the source itself, or a hard link of"),
    "target behind a link": (DISK, "a:ROOT/away/x", {}, "target directory ROOT/away is or lies behind a symlink"),
    "no target directory":  (DISK, "a:ROOT/no/x", {}, "target directory ROOT/no does not exist on host a"),
    "no base directory":    (DISK, "a:ROOT/no/{run}/x", {}, "target directory ROOT/no does not exist on host a"),
    "target below a file":  (DISK, "a:ROOT/disk.img/x", {}, "directory ROOT/disk.img: a part of it is not a directory"),
    "target outside":       (DISK, "a:/var/blockjobs-bad-input", {}, "is outside the write roots of host a ("),
    "target of host b":     (DISK, "a:OTHER/x", {}, "OTHER/x is outside the write roots of host a ("),
    "target is the root":   (DISK, "a:ABOVE", {}, "target ABOVE is a write root itself: a file beneath it was"),
    "target of our names":  (DISK, "a:ROOT/backup/x.part", {}, "names ending in .part, .manifest.json, .blake3 are"),
    "target in a journal":  (DISK, "a:ABOVE/.blockjobs/x", {}, ".blockjobs is the folder of the journals"),
    "name too long":        (DISK, "a:ROOT/backup/" + "n" * 240, {}, "a name of at most 230 bytes was expected"),
    "disk full":            (NO_SPACE, "a:ROOT/backup/{run}/x", {"speed": 1}, "needs 8796093022208 bytes, "),
}  # fmt: skip


@pytest.mark.parametrize(("source", "target", "keys", "said"), FAILS.values(), ids=FAILS)
def test_what_a_host_refuses_fails_the_job_and_leaves_the_disks_as_they_were(site: Site, source, target, keys, said):
    def full(text: str) -> str:
        return site.path(text.replace("ABOVE", str(site.root.parent)).replace("OTHER", str(site.fleet.root("b"))))

    before = site.disks()
    answer = site.start(source, full(target), **keys)
    answer.line(1, full(said), "aborted after")
    assert site.disks() == before
    assert not site.fleet.client.exists("bj:texts", "bj:h:a:locks")
    site.good()


def test_a_backup_says_so_too_and_again_within_the_same_second(site: Site):
    before = site.disks()
    for _ in range(2):
        words = [site.path(word) for word in ("a:ROOT/no.img", FREE)]
        site.say("backup", *words).line(1, "run backup-", "no.img does not exist on host a")
    assert site.disks() == before


def test_one_bad_member_of_a_group_is_named_and_nothing_is_left_of_the_others(site: Site):
    before = site.disks()
    jobs = [{"id": f"j{n}", "source": DISK, "target": f"a:ROOT/backup/{{run}}/{n}/x"} for n in range(3)]
    said = site.say("run", site.file(*jobs, {"id": "bad", "source": "a:ROOT/no.img", "target": FREE}))
    assert said.code == 1
    first, second = said.err.splitlines()
    assert first.endswith("0 done, 1 failed, 3 cancelled")
    assert second.endswith(site.path("bad failed: source ROOT/no.img does not exist on host a"))
    assert site.disks() == before


def test_a_disk_that_fills_up_fails_the_group_that_does_not_fit_and_the_copy_it_meets(site: Site):
    full = site.root / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "blockjobs-test", full]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        full.rmdir()
        pytest.skip("a small file system cannot be mounted here")
    try:
        before = site.disks()
        jobs = [{"id": f"j{n}", "source": DISK, "target": f"a:ROOT/full/{n}"} for n in range(3)]
        said = site.say("run", site.file(*jobs))
        assert said.code == 1
        assert f"the file system of {full} on host a needs {3 * (3 * MIB - 5)} bytes, {8 * MIB} are free" in said.err
        assert site.disks() == before

        slow = site.say("run", "--detach", site.file({**jobs[0], "id": "slow", "speed": "1MiB"}))
        job = slow.out.split()[1].removesuffix(":") + ".slow"
        site.fleet.until_offset(job, MIB)
        with (full / "rest").open("wb") as file:
            room = os.statvfs(full)
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)
        site.say("set-speed", job, "0")
        assert site.say("wait", job).code == 1
        error = json.loads(site.say("show", "--json", job).out)["error"]
        assert "/full/" in error
        assert error.endswith("No space left on device")
        assert [path.name for path in full.iterdir()] == ["rest"]
    finally:
        subprocess.run(["umount", full], check=True)
        full.rmdir()
    site.good()


# --- what can be seen at submit: refused, and nothing was started -----------------------------------------


def job(**keys: object) -> dict[str, object]:
    return {"id": "j", "source": DISK, "target": FREE, **keys}


DEBUG = {"driver": "blkdebug", "host": "a", "image": {"driver": "file", "filename": "/x"}}
REFUSED: dict[str, tuple[list[dict[str, object]], str]] = {
    "unknown host":        ([job(source="zz:/a", target="zz:/b")], "host 'zz' is not known: no worker has registered"),
    "two hosts":           ([job(target="b:/x")], "jobs[0].target: copying between hosts is not supported yet"),
    "target is source":    ([job(target=DISK)], "jobs[0].target: target equals source (a:ROOT/disk.img)"),
    "two with one target": ([job(), job(id="k", source="a:ROOT/twin.img")], "jobs[1].target: jobs[0] has the same"),
    "target read by one":  ([job(), job(id="k", target="a:ROOT/x", source=FREE)], "new.img is the source of jobs[1]"),
    "dot dot, target":     ([job(target="a:ROOT/../b/x")], "path 'ROOT/../b/x' has an empty part, '.' or '..': a"),
    "dot dot, source":     ([job(source="a:ROOT/../../etc/passwd")], "jobs[0].source: path 'ROOT/../../etc/passwd'"),
    "dot":                 ([job(source="a:ROOT/./x")], "has an empty part, '.' or '..': a plain absolute path was"),
    "slash at the end":    ([job(target="a:ROOT/backup/")], "has an empty part, '.' or '..': a plain absolute path"),
    "relative":            ([job(source="a:disk.img")], "path 'disk.img' is not absolute: a path that begins with '/'"),
    "no host":             ([job(source="/disk.img")], "volume '/disk.img': 'HOST:/PATH' was expected"),
    "NUL":                 ([job(target="a:ROOT/x\0y")], "path 'ROOT/x\\x00y' has a control character: a plain"),
    "new line":            ([job(source="a:ROOT/x\ny")], "path 'ROOT/x\\ny' has a control character: a plain absolute"),
    "long part":           ([job(target="a:/" + "n" * 256)], "is too long: at most 255 bytes a part and 4095 in all"),
    "long path":           ([job(target="a:" + "/n" * 2049)], "is too long: at most 255 bytes a part and 4095 in all"),
    "unknown word":        ([job(target="a:ROOT/{day}")], "unknown word '{day}' in 'ROOT/{day}'; one of {run} {date}"),
    "unknown field":       ([job(sped=5)], "jobs[0].sped: unknown field; one of auto-dismiss, auto-finalize"),
    "duplicate id":        ([job(), job(target="a:ROOT/x")], "jobs[1].id: duplicate id "),
    "bad id":              ([job(id="1/2")], "jobs[0].id: Invalid job ID '1/2'"),
    "colors in an id":     ([job(id="\x1b[31m\n")], "jobs[0].id: Invalid job ID "),
    "negative speed":      ([job(speed=-1)], "jobs[0].speed: -1 is not a size; a number of bytes, 0 or more"),
    "boolean speed":       ([job(speed=True)], "jobs[0].speed: true is not a size; a number of bytes, 0 or more"),
    "endless speed":       ([job(speed=10**30)], "is not a size; a number of bytes, 0 or more, or a text such as"),
    "number for boolean":  ([job(digests=1)], "jobs[0].digests: 1 is not accepted; true or false was expected"),
    "no jobs":             ([], "jobs: [] is not accepted; at least 1 of them was expected"),
    "unknown driver":      ([job(source={"driver": "qed", "host": "a"})], "Parameter 'driver' does not accept value"),
    "boolean size":        ([job(source={"driver": "null-co", "host": "a", "size": True})], "for 'size', expected:"),
    "size of 2**70":       ([job(source={"driver": "null-co", "host": "a", "size": 1 << 70})], "'size' expects a"),
    "no error's number":   ([job(source={**DEBUG, "inject-error": [{"errno": 1 << 40}]})], "'errno' expects the"),
    "device as target":    ([job(target={"driver": "host_device", "host": "a", "filename": "/dev/x"})],
                            "jobs[0].target: a:/dev/x is a block device; a file was expected as target"),
    "path of a device":    ([job(target="a:/dev/x")], "a:/dev/x is a block device; a file was expected as target, or"),
    "in place, a file":    ([job(**{"in-place": True})], "new.img is no block device; with 'in-place: true' a path"),
    "in place, a number":  ([job(**{"in-place": 1})], "jobs[0].in-place: 1 is not accepted; true or false was"),
    "in place, a format":  ([job(target="a:/dev/x", format="qcow2", **{"in-place": True})], "a raw block device was"),
    "in place, in a group": ([job(target="a:/dev/x", **{"in-place": True}), job(id="k")],
                            "jobs[0].in-place: an abort of the group would leave a:/dev/x undefined; 'allow-in-place"),
    "range of a backup":   ([job(offset=5)], "jobs[0].offset: not accepted by type 'backup'; type 'restore' was"),
    "negative offset":     ([job(type="restore", offset=-1)], "jobs[0].offset: -1 is not a size; a number of bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("jobs", "said"), REFUSED.values(), ids=REFUSED)
def test_what_a_run_file_may_not_say_is_refused_and_nothing_is_started(site: Site, jobs, said):
    before = site.disks(), site.registry()
    site.say("run", site.file(*jobs)).refused(site.path(said))
    assert (site.disks(), site.registry()) == before


BOMB = "x"
for _level in range(20):  # a list of lists of lists, four times longer at each level
    BOMB = f"&a{_level} [{BOMB}{f', *a{_level - 1}' * 3 if _level else ', x, x, x'}]"

TEXTS: dict[str, tuple[bytes | str, str]] = {
    "empty":          ("", ": nothing is in it; a run file was expected"),
    "binary":         (b"\x7fELF\xff\x00", ": byte 4 is not UTF-8; a run file in UTF-8 was expected"),
    "NUL":            ("version: \0", ": unacceptable character #x0000"),
    "malformed":      ("version: 1\njobs: [\n", ":3: expected the node content, but found '<stream end>'; YAML 1.2"),
    "tab":            ("version: 1\n\tname: x\n", ":2: found character '\\t' that cannot start any token; YAML 1.2"),
    "duplicate key":  ("version: 1\nname: a\nname: b\n", ':3: found duplicate key "name"'),
    "a text":         ("backup everything\n", ":1: 'backup everything' is not accepted; a mapping was expected"),
    "code":           ("!!python/object/apply:os.system [id]", ":1: could not determine a constructor for the tag"),
    "long number":    ("version: 1" + "0" * 5000, ": a number is too long; YAML 1.2 was expected"),
    "deep":           ("[" * 1000, ": nested too deeply; a run file was expected"),
    "in itself":      ("&a [*a]", ":1: [[[[[[[["),
    "bomb":           (f"version: 1\nname: {BOMB}\njobs: []\n", ":2: name: [[[[[[[[[["),
    "bad name":       ("version: 1\nname: \"a\\n\\e[31mb\"\njobs: []\n", ":2: name: invalid run name"),
    "version 2":      ("version: 2\nname: a\n", ":1: version: 2 is not supported; 1 was expected"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=TEXTS)
def test_what_is_no_run_file_is_refused(site: Site, text, said):
    before = site.registry()
    path = site.file()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    site.say("run", path).refused(f"{path}{said}" if said.startswith(":") else said)
    assert site.registry() == before


def test_a_run_file_that_cannot_be_read_is_refused(site: Site, tmp_path: Path):
    site.say("run", tmp_path / "none").refused("none: No such file or directory; a run file was expected")
    site.say("run", tmp_path).refused(": Is a directory; a run file was expected")
    site.say("run", tmp_path / "a\n\x1b[31mb").refused("a\\n\\x1b[31mb: No such file")
    site.say("run", "/dev/zero").refused("/dev/zero: the file is larger than 16777216 bytes; a run file was expected")
    os.truncate(path := site.file(), 1 << 40)
    site.say("run", path).refused("the file is larger than 16777216 bytes; a run file was expected")


COMMANDS: dict[str, tuple[list[str], str]] = {
    "no command":         (["undelete"], "No such command 'undelete'"),
    "no file":            (["run"], "Missing argument 'FILE' (see: blockjobs run --help)"),
    "unknown option":     (["run", "--fast", "x"], "No such option"),
    "one volume":         (["backup", "a:/x"], "Missing argument 'TARGET'"),
    "no host in it":      (["backup", "/x", "/y"], "volume '/x' names no host, and there are 4 hosts: HOST:/PATH was"),
    "relative and lost":  (["backup", "", ""], "volume '' names no host, and there are 4 hosts: HOST:/PATH was"),
    "bad host":           (["backup", "a b:/x", "a:/y"], "names no host, and there are 4 hosts"),
    "NUL":                (["backup", "a:/x\0", "a:/y"], "path '/x\\x00' has a control character"),
    "not UTF-8":          (["backup", "a:/x\udcff", "a:/y"], "path '/x\\udcff' is not valid UTF-8: a path in UTF-8"),
    "negative speed":     (["backup", "a:/x", "a:/y", "--speed", "-5"], "'-5' is not a size; a number of bytes, 0 or"),
    "speed in words":     (["backup", "a:/x", "a:/y", "--speed", "fast"], "'fast' is not a size; a number of bytes, 0"),
    "bad id":             (["backup", "a:/x", "a:/y", "--id", "1x"], "Invalid job ID '1x'"),
    "empty id":           (["backup", "a:/x", "a:/y", "--id", ""], "Invalid job ID ''"),
    "unknown policy":     (["backup", "a:/x", "a:/y", "--on-source-error", "x"], "'x' is not one of 'report',"),
    "no queue":           (["worker", "--host", "a"], "Missing option '--queue'. Choose from: copy, steps (see:"),
    "endless wait":       (["wait", "x", "--timeout", "nan"], "Invalid value for '--timeout': nan is not a number"),
    "negative wait":      (["wait", "x", "--timeout", "-1"], "Invalid value for '--timeout': -1.0 is not in the range"),
    "since when":         (["events", "--since", "noon"], "--since 'noon': the 'seq' of an event, such as"),
    "speed of nobody":    (["set-speed", "nobody", "5"], "no run and no job is named 'nobody'"),
    "speed -5":           (["set-speed", "nobody", "-5"], "'-5' is not a size; a number of bytes, 0 or more"),
    "speed x":            (["set-speed", "nobody", "x"], "'x' is not a size; a number of bytes, 0 or more"),
    "no speed":           (["set-speed", "nobody"], "Missing argument 'SPEED'"),
    "JSON that watches":  (["status", "--json", "--watch"], "--watch and --json exclude each other"),
    "events of nobody":   (["events", "nobody"], "no event is of 'nobody': a run, a transaction, a job or a host was"),
    "following nobody":   (["events", "--follow", "nobody"], "no event is of 'nobody': a run, a transaction, a job or"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "said"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_is_wrong_is_refused(site: Site, words, said):
    before = site.registry()
    site.say(*words).refused(said)
    assert site.registry() == before


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "finalize", "dismiss", "status", "show", "wait"])
def test_every_verb_refuses_an_id_that_nobody_has(site: Site, verb: str):
    before = site.registry()
    texts = {"nobody": "nobody", "nob*": "nob*", "": "", "a\n\x1b[31mb": "a\\n\\x1b[31mb", "a\udcff": "a\\udcff"}
    for text, shown in texts.items():
        site.say(verb, text).refused(f"no run and no job is named '{shown}'")
    assert site.registry() == before


def test_verbs_out_of_place_are_refused_in_qemu_s_words_and_change_nothing(site: Site):
    site.fleet.seq = site.fleet.registry.events.last()
    said = site.say("run", "--detach", site.file(job(speed="64kB")))
    run = said.out.split()[1].removesuffix(":")
    name = f"{run}.j"

    def state(text: str, verb: str) -> str:
        return f"Job '{name}' in state '{text}' cannot accept command verb '{verb}'"

    def unchanged(*words: object, said: str) -> None:
        site.fleet.seq = site.fleet.registry.events.last()
        site.say(*words).refused(site.path(said))
        assert [event for event in site.fleet.registry.events.all(site.fleet.seq) if event.run] == []

    site.fleet.until("ATTEMPT_CLAIMED", name)
    unchanged("resume", name, said="Can't resume a job that was not paused")
    unchanged("dismiss", name, said=state("running", "dismiss"))
    unchanged("finalize", name, said=state("running", "finalize"))
    unchanged("set-speed", name, "-1", said="'-1' is not a size")
    assert site.say("pause", name).code == 0
    site.fleet.until_status(name, "paused")
    unchanged("pause", name, said="Job is already paused")
    unchanged("dismiss", name, said=state("paused", "dismiss"))
    busy = "is busy: block device is in use by block job: backup"
    unchanged("run", site.file(job()), said=f"Node 'a:ROOT/backup/new.img' {busy} (job '{name}')")
    unchanged("run", site.file(job(source=FREE, target="a:ROOT/x")), said=f"{busy} (job '{name}')")
    unchanged("run", site.file(job(source="a:ROOT/there.img", target=DISK)), said=f"{busy} (a job reads it)")
    unchanged("backup", site.path("a:ROOT/there.img"), site.path("a:ROOT/x"), "--id", name, said="already in use")
    site.say("wait", name, "--timeout", "0.01").refused(f"timed out; not concluded yet: {name}", code=5)
    assert site.say("cancel", name).code == 0
    assert site.say("wait", name).code == 1
    for verb in ("pause", "cancel", "finalize"):
        unchanged(verb, name, said=state("concluded", verb))
    unchanged("resume", name, said="Can't resume a job that was not paused")
    unchanged("set-speed", name, "5", said=state("concluded", "set-speed"))
    both = site.say("dismiss", "nobody", name)
    assert (both.code, both.out) == (2, f"{name}: dismissed\n")
    both.line(2, "no run and no job is named 'nobody'")
    unchanged("dismiss", name, said=f"no run and no job is named '{name}'")
    site.good(FREE)


# --- Redis: exit 3 --------------------------------------------------------------------------------------

URLS: dict[str, tuple[str, str]] = {
    "nobody listens":  (f"redis://user:{SECRET}@127.0.0.1:1/0", "not reachable at redis://user:***@127.0.0.1:1/0:"),
    "no socket":       ("unix:///nowhere.sock?db=0", "not reachable at unix:///nowhere.sock?db=0: Error 2"),
    "no such machine": (f"redis://:{SECRET}@no.invalid/0", "is not reachable at redis://:***@no.invalid/0: Error -"),
    "secret option":   (f"redis://127.0.0.1:1/0?password={SECRET}", "is not reachable at redis://127.0.0.1:1/0: Error"),
    "secret with #":   (f"redis://u:{SECRET}#{SECRET}@127.0.0.1:1", "cannot be used:"),
    "secret with ?":   (f"redis://u:{SECRET}?{SECRET}@127.0.0.1:1", "cannot be used:"),
    "secret with /":   (f"redis://u:{SECRET}/{SECRET}@127.0.0.1:1", "cannot be used:"),
    "secret with @":   (f"redis://u:{SECRET}@{SECRET}@127.0.0.1:1", "is not reachable at redis://u:***@127.0.0.1:1:"),
    "no URL":          (SECRET, "Redis URL '***' cannot be used: redis://"),
    "another scheme":  (f"http://u:{SECRET}@x/", "Redis URL 'http://u:***@x/' cannot be used: redis://"),
    "no port":         ("redis://127.0.0.1:99999", "Redis URL 'redis://127.0.0.1:99999' cannot be used"),
    "unknown option":  (f"redis://127.0.0.1:1/0?pass={SECRET}", "Redis URL 'redis://127.0.0.1:1/0' cannot be used"),
    "nothing":         ("", "no URL is given and none is in "),
}  # fmt: skip


@pytest.mark.parametrize(("url", "said"), URLS.values(), ids=URLS)
def test_a_redis_that_is_not_there_is_exit_3_and_no_password_is_shown(site: Site, monkeypatch, tmp_path, url, said):
    monkeypatch.setenv(URL, url)
    monkeypatch.setenv("BLOCKJOBS_DIR", str(tmp_path))
    site.say("status").refused(said, "Redis", code=3)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("other")) as server:
        yield server


SETTINGS = {
    "evicts":        ("maxmemory-policy", "allkeys-lru", "'noeviction' is needed, because an eviction would delete"),
    "evicts random": ("maxmemory-policy", "volatile-random", "'noeviction' is needed, because"),
    "keeps nothing": ("appendonly", "no", "'yes' is needed, because a restart would lose the registry"),
    "keeps late":    ("appendfsync", "everysec", "'always' is needed, because 'everysec' lost acknowledged writes"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said"), SETTINGS.values(), ids=SETTINGS)
def test_a_redis_that_would_forget_is_exit_3_and_not_written_to(site, other, name, value, said):
    os.environ[URL] = other.url  # ``site`` sets it back
    with connect(other.url) as client:
        good = client.config_get(name)[name]
        client.config_set(name, value)
        for words in (["run", site.file(job())], ["status"], ["coordinator"], ["finalizer"]):
            site.say(*words).refused(f"has '{name} {value}': {said}", code=3)
        client.config_set(name, good)
        assert client.dbsize() == 0
    assert site.say("status").code == 0


def test_a_redis_that_refuses_commands_is_exit_3(site: Site, other: Server, monkeypatch: pytest.MonkeyPatch):
    with connect(other.url) as client:
        client.acl_setuser("weak", enabled=True, nopass=True, commands=["+ping", "+hello", "+client", "+config"])
        client.set("bj:runs", "of another type")
        monkeypatch.setenv(URL, other.url)
        site.say("status").refused("Redis refused a command: ", "wrong kind of value", code=3)
        monkeypatch.setenv(URL, f"unix://weak@{other.socket}?db=0&password={SECRET}")
        site.say("status").refused("Redis refused a command: ", "has no permissions", code=3)
        client.acl_setuser("weak", enabled=True, reset_passwords=True, passwords=[f"+{SECRET}{SECRET}"])
        site.say("status").refused("Redis is not reachable at ", "invalid username-password pair", code=3)
        client.delete("bj:runs")


# --- commands of the data plane ---------------------------------------------------------------------------


@pytest.fixture
def published(site: Site, tmp_path: Path) -> Path:
    """A committed image with its files, in a place of its own."""
    said = site.say("run", site.file(job(target="a:ROOT/backup/image.img")))
    assert said.code == 0
    for path in (site.root / "backup").glob("image.img*"):
        shutil.move(path, tmp_path)
    return tmp_path / "image.img"


def test_verify_names_the_mebibyte_that_differs_and_goes_on_after_what_it_cannot_compare(site: Site, published: Path):
    assert site.say("verify", published) == Said(0, f"{published}: {3 * MIB - 5} bytes as in the manifest\n", "")
    site.say("verify", published.with_name("no.img")).refused(
        "no.img.manifest.json: No such file or directory; an image that a job has committed was expected"
    )
    site.say("verify").refused("Missing argument 'TARGETS...'")
    content = bytearray(published.read_bytes())
    content[MIB + 5] ^= 1
    published.write_bytes(content)
    differs = f"{published}: bytes {MIB} to {2 * MIB} differ from the manifest\n"
    assert site.say("verify", published) == Said(1, differs, "")
    both = site.say("verify", published.with_name("no.img"), published)
    assert (both.code, both.out) == (1, differs)
    os.truncate(published, 5)
    assert site.say("verify", published).out == f"{published}: bytes 0 to {3 * MIB - 5} differ from the manifest\n"
    published.unlink()
    site.say("verify", published).refused(f"image {published}: No such file or directory")


def test_a_restore_says_what_it_cannot_restore(site: Site):
    assert site.start("a:ROOT/disk.img", "a:ROOT/backup/image.img").code == 0
    published = site.root / "backup" / "image.img"
    before = site.disks(), site.registry()
    site.say("restore", "nobody.knows", f"a:{site.root}/x").refused(
        "no job is named 'nobody.knows'; RUN.JOB of a backup, or HOST:/PATH of its image was expected"
    )
    site.say("restore", f"a:{published}", "b:/x").refused("copying between hosts is not supported yet")
    site.say("restore", f"a:{published}", f"a:{published}").refused("target equals source")
    site.say("restore", f"a:{published}", "a:/dev/x").refused("or 'in-place: true'")
    site.say("restore", f"a:{published}", f"a:{site.root}/x", "--offset", "-1").refused(
        "--offset", "'-1' is not a size"
    )
    site.say("restore", f"a:{published}").refused("Missing argument 'DEST'")
    assert (site.disks(), site.registry()) == before
    back = f"a:{site.root}/back.img"
    site.say("restore", f"a:{published}", back, "--offset", "2MiB", "--length", "1MiB").line(
        1, f"bytes {2 * MIB} to {3 * MIB} are not all in image {published}: it has {3 * MIB - 5} bytes"
    )
    site.say("restore", f"a:{published}", back, "--offset", "1TiB").line(1, "are not all in image")
    path = published.with_name("image.img.manifest.json")
    keys = json.loads(path.read_text())
    for bad, said in [
        ({"version": 2}, "a manifest of version 1 was expected"),
        ({"format": "vdi"}, "its manifest names an unknown format: one of raw, qcow2, vmdk was expected"),
        ({"format": "qcow2"}, "Image is not in qcow2 format"),
        ({"digests": None}, "only `--force` restores what cannot be checked"),
        ({"digests": keys["digests"] | {"root": "00"}}, "are not the ones that the manifest names"),
        ({"digests": keys["digests"] | {"file": "../x"}}, "digests of an unknown kind"),
        ({"size": 9 << 40}, "are not the ones that the manifest names"),
    ]:
        path.write_text(json.dumps(keys | bad))
        site.say("restore", f"a:{published}", back).line(1, said)
    assert site.disks().keys() == before[0].keys()
    for path in published.parent.glob("image.img*"):
        path.unlink()


def test_verify_believes_nothing_of_a_manifest(site: Site, published: Path):
    path = published.with_name("image.img.manifest.json")
    keys = json.loads(path.read_text())
    own = keys["digests"]
    for bad, said in [
        ({"version": 2}, "a manifest of version 1 was expected"),
        *[({"size": size}, "a number of bytes was expected") for size in ("x", None, True, 1.5, -1, 1 << 64)],
        ({"size": 5}, "are not the ones that the manifest names"),
        ({"digests": None}, "was copied with 'digests: false': there is nothing to verify it with"),
        *[({"digests": digests}, "digests: null, or the digests' kind and file were expected") for digests in (5, [])],
        *[({"digests": own | {"file": name}}, "digests of an unknown kind") for name in ("../x", "", "..", 5, "a\0b")],
        ({"digests": own | {"chunk": 512}}, "digests of an unknown kind: blake3 by 1 MiB was expected"),
        ({"digests": own | {"root": "00"}}, "are not the ones that the manifest names"),
        ({"digests": own | {"file": "none"}}, "none: No such file or directory"),
    ]:
        path.write_text(json.dumps(keys | bad))
        site.say("verify", published).refused(said)
    for content in (b"", b"\xff", b"[" * 100_000, b"null"):
        path.write_bytes(content)
        site.say("verify", published).refused(f"manifest {path}", "a manifest of version 1 was expected")
    path.unlink()
    os.mkfifo(path)
    site.say("verify", published).refused(f"manifest {path}", "a manifest of version 1 was expected")


CONFIGS: dict[str, tuple[Callable[[str], str], str]] = {
    "empty":         (lambda _: "", "name: missing: a host name was expected"),
    "no TOML":       (lambda _: "name = ", "TOML was expected"),
    "another host":  (lambda text: text.replace('"a"', '"b"'), "name: it is of host 'b', not of 'a'"),
    "unknown key":   (lambda text: text + "x = 1\n", "x: unknown key: one of name, slots, read-roots"),
    "twice":         (lambda text: text + text, "TOML was expected"),
    "boolean slots": (lambda text: text.replace("slots = 2", "slots = true"), "slots: True: an integer from 1 to 1000"),
    "no slots":      (lambda text: text.replace("slots = 2", "slots = 0"), "slots: 0: an integer from 1 to 1000 was"),
    "relative root": (lambda text: text.replace('["/', '["'), "read-roots: path '"),
    "missing root":  (lambda text: text.replace('["/', '["/no/'), "is not an existing directory"),
    "dot dot":       (lambda text: text.replace('["/', '["/../'), "has an empty part, '.' or '..'"),
    "in place":      (lambda text: text.replace("in-place = false", "in-place = 1"), "allow-in-place: 1: true or"),
    "a number":      (lambda text: text.replace("overwrite = false", "overwrite = 1"), "allow-overwrite: 1: true or"),
    "no device":     (lambda text: text.replace("devices = []", 'devices = ["/etc/x"]'), "a list of paths under /dev"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CONFIGS.values(), ids=CONFIGS)
def test_a_worker_with_a_wrong_configuration_does_not_start(site: Site, tmp_path: Path, change, said):
    path = tmp_path / "host.toml"
    path.write_text(change((site.fleet.place / "a.toml").read_text()))
    site.say("worker", "--host", "a", "--queue", "copy", "--config", path).refused(f"{path}: ", said)


def test_a_worker_without_a_configuration_does_not_start(site: Site, tmp_path: Path):
    words = ["worker", "--queue", "steps", "--host"]
    site.say(*words, "a", "--config", tmp_path / "no").refused(
        "no: No such file or directory: a readable host.toml was"
    )
    site.say(*words, "a", "--config", tmp_path).refused(": Is a directory: a readable host.toml was expected")
    (tmp_path / "host.toml").write_bytes(b"\xff")
    site.say(*words, "a", "--config", tmp_path / "host.toml").refused("TOML was expected")
    site.say(*words, "a\nb", "--config", site.fleet.place / "a.toml").refused("invalid host name 'a\\nb'")


# --- the whole way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "url", "code", "said"),
    [
        ([job(speed=-1)], "", 2, "jobs[0].speed: -1 is not a size; a number of bytes, 0 or more"),
        ([job(source="a:ROOT/no.img")], "", 1, "aborted after 0 s: source ROOT/no.img does not exist on host a"),
        ([job()], f"redis://:{SECRET}@127.0.0.1:1", 3, "Redis is not reachable at redis://:***@127.0.0.1:1"),
    ],
    ids=["refused", "failed", "no Redis"],
)
def test_the_program_itself_says_the_same(site: Site, jobs, url, code, said):
    argv = [sys.executable, "-P", "-m", "blockjobs", "run", str(site.file(*jobs))]
    env = os.environ | {URL: url or site.fleet.server.url}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)
    line = Said(ended.returncode, ended.stdout, ended.stderr).line(code, site.path(said).partition(" 0 s")[0])
    assert site.path(said).rpartition("0 s: ")[2] in line


def test_a_host_that_is_down_is_refused_by_name_and_the_others_go_on(site: Site):
    fleet = site.fleet
    fleet.seq = site.down_since
    fleet.until("HOST_DOWN", "d")
    before = site.disks(), site.registry()
    jobs = [job(), job(id="k", source=f"d:{fleet.root('d')}/x", target=f"d:{fleet.root('d')}/y")]
    site.say("run", site.file(*jobs)).refused("host 'd' is down")
    assert (site.disks(), site.registry()) == before
    site.good(FREE)
