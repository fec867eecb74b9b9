"""Devices written in place: allowed by host and job alone, fenced, and undefined until a run onto them completes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from fleet import MIB, Fleet, files
from test_restore import backup, call, ext4, flip, sound
from unmounting import unmount

from blockworker.targets import manifest

SIZE = 72  # MiB of the device: more than what is copied to it
FILL = b"\xa5"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


class Loop:
    """A loop device on a file that is full of something."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(FILL * (SIZE * MIB))
        attach = subprocess.run(["losetup", "-f", "--show", file], capture_output=True, text=True, check=False)
        if attach.returncode:
            pytest.skip(f"no loop device: {attach.stderr.strip()}")
        self.path = attach.stdout.strip()

    def digest(self) -> str:
        with open(self.path, "rb") as device:
            return hashlib.file_digest(device, "sha256").hexdigest()

    def read(self, offset: int, length: int) -> bytes:
        with open(self.path, "rb") as device:
            device.seek(offset)
            return device.read(length)

    def detach(self) -> None:
        subprocess.run(["losetup", "-d", self.path], check=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Loop, Loop]]:
    """A host ``a`` that lets one loop device be written, and does not know of another one."""
    place = tmp_path_factory.mktemp("in-place")
    loops: list[Loop] = []
    try:
        loops += [Loop(place / "listed.bin"), Loop(place / "other.bin")]
        fleet = Fleet(place, ["a"], devices=[loops[0].path])
        yield fleet, *loops
        fleet.close()
    finally:
        for loop in loops:
            loop.detach()


@pytest.fixture
def fleet(site: tuple[Fleet, Loop, Loop]) -> Fleet:
    site[0].mend()
    return site[0]


@pytest.fixture
def loop(site: tuple[Fleet, Loop, Loop]) -> Loop:
    return site[1]


@pytest.fixture(scope="module")
def backed(site: tuple[Fleet, Loop, Loop]) -> tuple[str, Path, Path]:
    """A committed backup of a file system of 64 MiB: its job, its source, its image."""
    source = ext4(site[0], "a")
    job, made = backup(site[0], "a", source)
    return job, source, made


def test_a_file_system_comes_back_onto_a_device_and_the_rest_of_it_is_untouched(fleet, loop, backed) -> None:
    job, source, _ = backed
    said = call(fleet, "restore", job, f"a:{loop.path}", "--in-place")
    assert said.returncode == 0, said
    assert subprocess.run(["cmp", "-n", str(64 * MIB), source, loop.path], check=False).returncode == 0
    assert sound(Path(loop.path))
    assert loop.read(64 * MIB, 8 * MIB) == FILL * (8 * MIB)
    (record,) = [json.loads(path.read_text()) for path in records(fleet)]
    assert (record["state"], record["left_by"]) == ("valid", "")
    assert record["manifest"]["in_place"] == {"device_size": SIZE * MIB, "offset": 0, "untouched": 8 * MIB}
    (restored,) = [view for view in fleet.registry.views.jobs(fleet.registry.views.all()) if view.type == "restore"]
    assert restored.result["untouched"] == 8 * MIB
    assert call(fleet, "backup", source, f"a:{fleet.root('a')}/y.img").returncode == 0, "nothing holds it any more"


def records(fleet: Fleet) -> list[Path]:
    return sorted((fleet.place / "state" / "a" / "devices").glob("*.json"))


def test_a_range_comes_back_to_its_place_and_nothing_else_changes(fleet, loop, backed) -> None:
    job, source, _ = backed
    before = loop.read(0, SIZE * MIB)
    offset, length = 3 * MIB + 100, 2 * MIB + 5
    junk = os.urandom(4 * MIB)
    with open(loop.path, "r+b") as device:
        device.seek(2 * MIB)
        device.write(junk)
    call(fleet, "restore", job, f"a:{loop.path}", "--in-place", "--offset", offset, "--length", length)
    wanted = bytearray(before)
    wanted[2 * MIB : 6 * MIB] = junk
    wanted[offset : offset + length] = source.read_bytes()[offset : offset + length]
    assert loop.read(0, SIZE * MIB) == wanted


def test_a_cancelled_restore_leaves_the_device_undefined_until_one_completes(fleet, loop, backed) -> None:
    job, source, made = backed
    started(fleet, loop, made, "half")
    fleet.registry.verbs.cancel("half")
    fleet.until("TARGET_UNDEFINED", "half")
    fleet.until_status("half", "concluded")
    view = fleet.job("half")
    assert view.cancelled
    assert "is undefined: job 'half' has written to it since" in view.undefined
    until_says(fleet, "hosts", word=f"{loop.path} is undefined: job 'half'")
    assert "undefined:" in call(fleet, "show", "half").stdout
    assert json.loads(call(fleet, "show", "half", "--json").stdout)["target-undefined"] == view.undefined
    reading = {"driver": "host_device", "host": "a", "filename": loop.path}
    run = fleet.submit(fleet.plan([{"id": "r", "source": reading, "target": f"a:{fleet.root('a')}/{{run}}.img"}]))
    fleet.until("RUN_ENDED", run)
    assert "is undefined: job 'half' has written" in fleet.job(f"{run}.r").error

    fleet.restart("steps@a")  # what is on record is on disk
    fleet.restart("copy@a")
    said = call(fleet, "restore", job, f"a:{loop.path}", "--in-place")
    assert said.returncode == 0, said
    assert subprocess.run(["cmp", "-n", str(64 * MIB), source, loop.path], check=False).returncode == 0
    until_says(fleet, "show", "half", word="a later job onto it has completed")
    until_says(fleet, "hosts", word="undefined", there=False)
    run = fleet.submit(fleet.plan([{"id": "r", "source": reading, "target": f"a:{fleet.root('a')}/{{run}}.img"}]))
    fleet.until("RUN_ENDED", run)
    assert fleet.job(f"{run}.r").ret == 0
    fleet.registry.verbs.dismiss("half")


def started(fleet: Fleet, loop: Loop, made: Path, name: str) -> None:
    """A restore that has written something durably, and has more than a minute before it."""
    fleet.seq = fleet.registry.events.last()
    said = call(
        fleet, "restore", f"a:{made}", f"a:{loop.path}", "--in-place", "--speed", "768KiB", "--detach", "--id", name
    )
    assert said.returncode == 0, said
    fleet.until("ATTEMPT_CLAIMED", name)
    fleet.until_durable("a", name)


def until_says(fleet: Fleet, *command: str, word: str, there: bool = True) -> str:
    """What a command says once beats have told it: one has the records read, the next one tells them."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        said = call(fleet, *command).stdout
        if (word in said) == there:
            return said
    raise AssertionError(said)


def test_a_restore_whose_writers_are_killed_again_and_again_fails_and_says_what_it_leaves(fleet, loop, backed) -> None:
    job, source, made = backed
    started(fleet, loop, made, "killed")
    fleet.registry.verbs.set_speed("killed", 1 << 18)  # nothing more becomes durable soon
    for _ in range(10):
        os.kill(fleet.writer("a", "killed"), signal.SIGKILL)
        fleet.until("ATTEMPT_RELEASED", "killed")
        if fleet.job("killed").status in ("aborting", "concluded"):
            break
        fleet.until("ATTEMPT_CLAIMED", "killed")
    fleet.until("TARGET_UNDEFINED", "killed")
    fleet.until_status("killed", "concluded")
    view = fleet.job("killed")
    assert view.ret
    assert "is undefined: job 'killed'" in view.undefined
    assert call(fleet, "restore", job, f"a:{loop.path}", "--in-place").returncode == 0
    assert subprocess.run(["cmp", "-n", str(64 * MIB), source, loop.path], check=False).returncode == 0
    fleet.registry.verbs.dismiss("killed")


def test_one_kill_costs_no_more_than_what_was_not_durable(fleet, loop, backed) -> None:
    _, source, made = backed
    started(fleet, loop, made, "once")
    os.kill(fleet.writer("a", "once"), signal.SIGKILL)
    fleet.until("ATTEMPT_CLAIMED", "once")
    fleet.registry.verbs.set_speed("once", 0)
    fleet.until_status("once", "concluded")
    view = fleet.job("once")
    assert (view.ret, view.attempts, view.undefined) == (0, 2, "")
    assert view.bytes["recopied"] < view.offset, "it began again at 0"
    assert view.bytes["read"] < view.len + view.bytes["recopied"] + 2 * MIB
    assert subprocess.run(["cmp", "-n", str(64 * MIB), source, loop.path], check=False).returncode == 0
    fleet.registry.verbs.dismiss("once")


def test_a_frozen_writer_is_dead_before_another_one_has_the_device(fleet, loop, backed) -> None:
    _, source, made = backed
    started(fleet, loop, made, "frozen")
    zombie = psutil.Process(fleet.writer("a", "frozen"))
    zombie.suspend()
    with pytest.raises(OSError, match="busy"):
        os.open(loop.path, os.O_RDWR | os.O_EXCL)
    assert fleet.until("ATTEMPT_RELEASED", "frozen").fields["reason"] == "fenced"
    assert not zombie.is_running() or zombie.status() == psutil.STATUS_ZOMBIE  # dead, and not yet waited for
    fleet.until("ATTEMPT_CLAIMED", "frozen")
    fleet.registry.verbs.set_speed("frozen", 0)
    fleet.until_status("frozen", "concluded")
    assert (fleet.job("frozen").ret, fleet.job("frozen").undefined) == (0, "")
    assert subprocess.run(["cmp", "-n", str(64 * MIB), source, loop.path], check=False).returncode == 0
    fleet.registry.verbs.dismiss("frozen")


def test_what_is_found_wrong_before_anything_is_written_leaves_the_device_as_it_was(fleet, loop) -> None:
    small = fleet.image("a", "small.img", 2)
    _, copy = backup(fleet, "a", small)
    before, state = loop.digest(), [path.read_bytes() for path in records(fleet)]
    os.truncate(copy, MIB)
    said = call(fleet, "restore", f"a:{copy}", f"a:{loop.path}", "--in-place")
    assert "are missing: the image was cut" in said.stderr
    assert (loop.digest(), [path.read_bytes() for path in records(fleet)]) == (before, state)


def test_a_flipped_bit_stops_a_restore_onto_a_device_which_is_undefined_then(fleet, loop, backed) -> None:
    job, _, made = backed
    copied = fleet.root("a") / "copied.img"
    for suffix in ("", ".manifest.json", ".blake3"):
        shutil.copy(f"{made}{suffix}", f"{copied}{suffix}")
    told = json.loads(Path(f"{copied}.manifest.json").read_text())
    told["digests"]["file"] = "copied.img.blake3"
    Path(f"{copied}.manifest.json").write_bytes(manifest.manifest_text(told))
    flip(copied, 5)
    said = call(fleet, "restore", f"a:{copied}", f"a:{loop.path}", "--in-place")
    assert said.returncode == 1
    first, second = said.stderr.splitlines()
    assert f"bytes 0 to {MIB} differ from the digests of its manifest" in first
    assert "is undefined: job 'restore-" in second
    assert call(fleet, "restore", job, f"a:{loop.path}", "--in-place").returncode == 0


REFUSED: dict[str, tuple[Callable[[str, str], list[str]], int, str]] = {
    "not listed":    (lambda _, other: [f"a:{other}", "--in-place"], 1, "is not in the devices of host a ("),
    "not said":      (lambda mine, _: [f"a:{mine}"], 2, "is a block device; a file was expected as target, or 'in-pl"),
    "no device":     (lambda *_: ["a:/srv/x.img", "--in-place"], 2, "is no block device; with 'in-place: true' a path"),
    "not there":     (lambda *_: ["a:/dev/none", "--in-place"], 1, "/dev/none is not in the devices of host a ("),
    "a format":      (lambda mine, _: [f"a:{mine}", "--in-place", "--format", "qcow2"], 2, "a raw block device was"),
    "beyond it":     (lambda mine, _: [f"a:{mine}", "--in-place", "--offset", "80MiB"], 1, "are not all in image"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_who_may_not_write_a_device_does_not(site, backed, case) -> None:
    words, code, said = case
    fleet, mine, other = site
    before = mine.digest(), other.digest(), files(fleet.root("a"))
    answer = call(fleet, "restore", backed[0], *words(mine.path, other.path))
    assert (answer.returncode, said in answer.stderr, answer.stderr.count("\n")) == (code, True, 1), answer
    assert (mine.digest(), other.digest(), files(fleet.root("a"))) == before


def test_a_device_that_is_too_small_is_refused(fleet, loop) -> None:
    source = fleet.root("a") / "large.img"
    source.touch()
    os.truncate(source, (SIZE + 1) * MIB)
    before = loop.digest()
    said = call(fleet, "backup", f"a:{source}", f"a:{loop.path}", "--in-place")
    assert f"has {SIZE * MIB} bytes, {(SIZE + 1) * MIB} are needed" in said.stderr
    assert loop.digest() == before


def test_a_mounted_device_is_refused_and_so_is_one_that_lies_in_the_source(fleet, loop, backed, tmp_path) -> None:
    job, _, _ = backed
    assert call(fleet, "restore", job, f"a:{loop.path}", "--in-place").returncode == 0
    os.link(loop.file, fleet.root("a") / "twin.bin")
    said = call(fleet, "backup", f"a:{fleet.root('a')}/twin.bin", f"a:{loop.path}", "--in-place")
    assert f"target {loop.path} is the source itself, lies in it, or contains it" in said.stderr
    mount = subprocess.run(["mount", "-o", "ro", loop.path, tmp_path], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("a loop device cannot be mounted here")
    try:
        before = loop.digest()
        said = call(fleet, "restore", job, f"a:{loop.path}", "--in-place")
        assert (said.returncode, f"target {loop.path} on host a is in use" in said.stderr) == (1, True), said
        assert loop.digest() == before
    finally:
        unmount(tmp_path)


def test_a_host_that_does_not_allow_it_is_not_written(site, tmp_path) -> None:
    _, loop, _ = site
    fleet = Fleet(tmp_path, ["a"])
    try:
        source = fleet.image("a", "source.img", 2)
        before = loop.digest()
        said = call(fleet, "backup", f"a:{source}", f"a:{loop.path}", "--in-place")
        assert (said.returncode, "does not allow devices to be written" in said.stderr) == (1, True), said
        assert loop.digest() == before
    finally:
        fleet.close()


def test_a_group_has_a_device_only_if_it_says_so(fleet, loop, tmp_path) -> None:
    source = fleet.image("a", "source.img", 2)
    job = {"source": f"a:{source}", "target": f"a:{fleet.root('a')}/{{run}}/{{name}}.img"}
    device = {"source": f"a:{source}", "target": f"a:{loop.path}", "in-place": True}
    path = tmp_path / "run.yaml"
    keys = {"version": 1, "name": "pair", "jobs": [{"id": "one", **job}, {"id": "two", **device}]}
    path.write_text(json.dumps(keys))
    said = call(fleet, "run", path)
    assert (said.returncode, "jobs[1].in-place: an abort of the group would leave" in said.stderr) == (2, True), said
    path.write_text(json.dumps(keys | {"allow-in-place": True}))
    said = call(fleet, "run", path)
    assert said.returncode == 0, said
    assert loop.read(0, 2 * MIB) == source.read_bytes()
    path.write_text(json.dumps(keys | {"completion-mode": "individual", "name": "single"}))
    assert call(fleet, "run", path).returncode == 0


def test_a_mirror_follows_onto_a_device(fleet, loop) -> None:
    source = fleet.image("a", "followed.img", 8)
    os.truncate(source, 12 * MIB)
    said = call(fleet, "mirror", f"a:{source}", f"a:{loop.path}", "--in-place", "--detach", "--id", "follow")
    assert said.returncode == 0, said
    fleet.seq = "0"
    fleet.until("BLOCK_JOB_READY", "follow")
    with source.open("r+b") as file:
        file.write(b"changed while it was mirrored")
    fleet.registry.verbs.complete("follow")
    fleet.until_status("follow", "concluded")
    assert fleet.job("follow").ret == 0, fleet.job("follow")
    assert loop.read(0, 12 * MIB) == source.read_bytes()
    fleet.registry.verbs.dismiss("follow")
