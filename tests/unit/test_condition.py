"""A source is compared with what OPEN saw of it: whether it is the same thing, of the same size, and not written to."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgpack
import pytest
from mounts import memory, mounted
from unmounting import unmount

from blockjobs.model import volumespec
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.system import kernel
from blockworker.volumes import REPLACED, Identity, open_source
from blockworker.volumes.condition import Proof, identity_of

MIB = 1 << 20
SIZE = 4 * MIB
COARSE = 5  # CLOCK_REALTIME_COARSE: the clock that the kernel takes time stamps from


@pytest.fixture(params=["ext4", "xfs", "btrfs"], scope="module")
def file_system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of its own."""
    with mounted(request.param, tmp_path_factory.mktemp("fs"), gib=1) as top:
        yield top


@pytest.fixture
def place(file_system: Path) -> Path:
    """A directory of a file system of its own, with the source in it."""
    made = Path(tempfile.mkdtemp(dir=file_system))
    (made / "source").write_bytes(b"A" * SIZE)
    return made


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory of a tmpfs."""
    where = memory(16 * MIB)
    if where is None:
        pytest.skip("there is no room in memory for a file of 4 MiB")
    made = Path(tempfile.mkdtemp(dir=where))
    (made / "source").write_bytes(b"A" * SIZE)
    yield made
    shutil.rmtree(made)


def seen(path: Path) -> Identity:
    """What a look at a source stores, as the registry and a manifest give it back."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = identity_of(fd, str(path))
    finally:
        os.close(fd)
    packed = msgpack.unpackb(msgpack.packb(found.to_list()))
    assert Identity.from_list(json.loads(json.dumps(packed))) == found
    return found


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as pages:
        yield pages


# --- what is done to a source, and what the next look says --------------------------------------------


def rewritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"B" * SIZE)


def written_and_touched(path: Path) -> None:
    """As ``touch -r`` does it: the mtime is the one of before."""
    before = path.stat()
    rewritten(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def punched(path: Path) -> None:
    subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", "65536", path], check=True)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"B")


def shrunk(path: Path) -> None:
    os.truncate(path, SIZE - 512)


def replaced(path: Path) -> None:
    """By a file of the same content, size and times."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    other.rename(path)


def in_its_inode(path: Path) -> None:
    """Another file, if need be one that has the number of the one before."""
    number = path.stat().st_ino
    for _ in range(100):
        path.unlink()
        path.write_bytes(b"A" * SIZE)
        if path.stat().st_ino == number:
            break


CHANGES = [
    (rewritten, {"mtime"}),
    (written_and_touched, {"ctime"}),
    (punched, {"mtime"}),
    (grown, {"size"}),
    (shrunk, {"size"}),
    (replaced, {"another file"}),
    (in_its_inode, {"another file"}),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_what_was_done_to_a_source_is_seen_at_once(place, change, expected):
    path = place / "source"
    rewritten(path)  # within the same tick of the clock as the look, and as the change
    before = seen(path)
    change(path)
    what = before.changed(seen(path))
    assert what in expected
    assert (what in REPLACED) == (change not in (rewritten, written_and_touched, punched))


def test_a_source_that_nobody_writes_to_is_unchanged(place):
    path = place / "source"
    before = seen(path)
    path.read_bytes()
    with mapped(path) as pages:
        assert pages[0] == ord("A")
        assert before.changed(seen(path)) == ""


def test_a_write_through_a_page_that_was_dirty_before_is_seen(place):
    path = place / "source"
    with mapped(path) as pages:
        pages[0] = pages[3 * MIB] = ord("b")
        before = seen(path)
        assert before.changed(seen(path)) == ""
        pages[3 * MIB] = ord("N")
        assert before.changed(seen(path)) == "mtime"


def test_without_a_look_such_a_write_moves_no_time(place):
    """The control of the test above: what a look does is needed."""
    path = place / "source"
    with mapped(path) as pages:
        pages[3 * MIB] = ord("b")
        before = path.stat()
        pages[3 * MIB] = ord("N")
        behind = path.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns) == (behind.st_mtime_ns, behind.st_ctime_ns)


def test_a_look_at_what_was_written_just_now_lasts_until_the_clock_has_ticked(place):
    path = place / "source"
    rewritten(path)
    for _ in range(20):  # nothing is dirty from the second time on: the look itself takes less than a tick
        seen(path)
        assert time.clock_gettime_ns(COARSE) > path.stat().st_ctime_ns
        path.chmod(0o600)


def test_a_write_within_one_second_is_seen_where_a_file_system_keeps_whole_seconds(tmp_path):
    with mounted("ext4, whole seconds", tmp_path / "fs", gib=1) as top:
        path = top / "source"
        path.write_bytes(b"A" * SIZE)
        assert path.stat().st_ctime_ns % 1_000_000_000 == 0
        before = seen(path)
        rewritten(path)
        assert before.changed(seen(path)) == "mtime"


def test_ten_writes_in_a_row_are_ten_changes(place):
    path = place / "source"
    looks = []
    with path.open("r+b", buffering=0) as file:
        for number in range(10):
            file.seek(0)
            file.write(b"%d" % number)
            looks.append(seen(path))
    assert [before.changed(behind) for before, behind in pairwise(looks)] == ["mtime"] * 9


def test_a_file_that_is_written_all_the_time_is_never_called_unchanged(place):
    script = "import os, sys\nfd = os.open(sys.argv[1], 1)\nprint(flush=True)\nwhile True: os.pwrite(fd, b'x', 0)"
    writer = subprocess.Popen([sys.executable, "-c", script, str(place / "source")], stdout=subprocess.PIPE)
    try:
        writer.stdout.readline()
        before, deadline = seen(place / "source"), time.monotonic() + 10
        while (place / "source").stat().st_ctime_ns == before.ctime_ns:  # on a busy machine the writer may wait
            assert time.monotonic() < deadline
        assert before.changed(seen(place / "source")) == "mtime"
    finally:
        writer.kill()
        writer.communicate()


def test_a_file_that_is_written_during_each_look_proves_nothing(place, monkeypatch):
    """The write is ahead of the last look at the time: one behind it, within the same tick, would leave no trace."""
    path, real = place / "source", kernel.write_back

    def write_meanwhile(fd):
        with path.open("r+b") as file:
            file.write(b"meanwhile")
        real(fd)

    assert seen(path).proof is Proof.TIMES
    monkeypatch.setattr(kernel, "write_back", write_meanwhile)
    assert seen(path).proof is Proof.NOTHING


def test_it_is_the_same_file_where_its_file_system_is_mounted_under_another_number(tmp_path):
    with mounted("xfs", tmp_path / "fs", gib=1) as top:
        (top / "source").write_bytes(b"A" * SIZE)
        before = seen(top / "source")
        disk = tmp_path / "fs" / "disk"
        device = subprocess.check_output(["losetup", "-f", "--show", disk], text=True).strip()
        unmount(top)
        try:
            subprocess.run(["mount", device, top], check=True)
            again = seen(top / "source")
        finally:
            subprocess.run(["losetup", "-d", device], check=True)  # with the mount
        assert before.changed(again) == ""
        assert before.dev != again.dev


# --- where time stamps prove nothing ------------------------------------------------------------------


def test_in_memory_only_the_content_proves_that_nothing_was_written(in_memory):
    path = in_memory / "source"
    before = seen(path)
    assert before.proved_by_content()
    assert before.changed(seen(path)) is None
    rewritten(path)
    assert before.changed(seen(path)) == "mtime"
    grown(path)
    assert before.changed(seen(path)) == "size"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A file, and a loop device of it."""
    if os.geteuid():
        pytest.skip("only root has loop devices")
    file = tmp_path / "disk"
    file.write_bytes(b"A" * SIZE)
    found = subprocess.check_output(["losetup", "-f", "--show", file], text=True).strip()
    yield file, found
    subprocess.run(["losetup", "-d", found], check=True)


def test_a_device_is_never_called_unchanged_but_another_one_and_another_size_are_known(device, tmp_path):
    file, name = device
    before = seen(Path(name))
    assert before.changed(seen(Path(name))) is None
    os.truncate(file, 2 * SIZE)
    subprocess.run(["losetup", "-c", name], check=True)
    assert before.changed(seen(Path(name))) == "size"
    os.truncate(file, SIZE)
    subprocess.run(["losetup", "-c", name], check=True)
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(name)
    assert before.changed(seen(link)) is None
    other.write_bytes(b"B" * SIZE)
    second = subprocess.check_output(["losetup", "-f", "--show", other], text=True).strip()
    try:
        link.unlink()
        link.symlink_to(second)
        assert before.changed(seen(link)) == "another device"
    finally:
        subprocess.run(["losetup", "-d", second], check=True)


# --- layers -------------------------------------------------------------------------------------------

needs_qemu = pytest.mark.skipif(
    not (shutil.which("qemu-nbd") and shutil.which("qemu-img")), reason="qemu-utils is not installed: `make tools`"
)


def layered(top: Path, low: str, form: str = "raw") -> Identity:
    below = {"driver": "file", "filename": low} if form == "raw" else {"driver": form, "file": low, "backing": None}
    if low.startswith("/dev/"):
        below = {"driver": "host_device", "filename": low}
    keys = {"driver": "qcow2", "host": "h", "file": {"driver": "file", "filename": str(top)}, "backing": below}
    config = HostConfig(name="h", read_roots=(str(top.parent),), write_roots=(), devices=("/dev/loop*",))
    source = open_source(volumespec.parse_volume(keys).volume, Roots(config))
    try:
        return Identity.from_list(json.loads(json.dumps(source.identity().to_list())))
    finally:
        source.close()


def image_on(low: str, top: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", low, "-F", "raw", top], check=True)


@needs_qemu
def test_a_layer_below_that_was_written_or_replaced_is_seen(tmp_path):
    low, top = tmp_path / "low", tmp_path / "top"
    low.write_bytes(b"A" * SIZE)
    image_on(str(low), top)
    before = layered(top, str(low))
    assert before.changed(layered(top, str(low))) == ""
    rewritten(low)
    assert before.changed(layered(top, str(low))) == "mtime of a layer below"
    written_and_touched(low)
    assert before.changed(layered(top, str(low))) in ("mtime of a layer below", "ctime of a layer below")
    replaced(low)
    assert before.changed(layered(top, str(low))) == "another layer"
    assert before.changed(layered(top, str(low))) in REPLACED


@needs_qemu
def test_an_image_on_a_device_is_never_called_unchanged(tmp_path, device):
    top = tmp_path / "top"
    image_on(device[1], top)
    before = layered(top, device[1])
    assert before.changed(layered(top, device[1])) is None
    os.utime(top)
    assert before.changed(layered(top, device[1])) == "mtime"


# --- records of the version before --------------------------------------------------------------------


def test_a_record_of_six_values_is_compared_by_what_it_has(place):
    path = place / "source"
    st = path.stat()
    old = Identity.from_list(["file", st.st_dev + 1, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns])
    assert old.changed(seen(path)) == ""
    for number, what in ((2, "another file"), (3, "size"), (4, "mtime"), (5, "ctime")):
        values = old.to_list()[:6]
        values[number] += 1
        assert Identity.from_list(values).changed(seen(path)) == what
    rewritten(path)
    assert old.changed(seen(path)) == "mtime"


def test_a_record_of_a_later_version_is_compared_by_what_is_known_of_it(place):
    now = seen(place / "source")
    later = Identity.from_list([*now.to_list()[:7], "a proof of a later version", [], "more"])
    assert later.changed(now) is None
    rewritten(place / "source")
    assert later.changed(seen(place / "source")) == "mtime"


def test_what_no_record_tells_is_not_known():
    nothing = Identity.from_list(["none"])
    file = Identity("file", 1, 2, SIZE, 3, 4, which="uuid:1/2")
    assert nothing.changed(file) is file.changed(nothing) is nothing.changed(nothing) is None
    assert Identity("none", size=5).changed(Identity("none", size=6)) == "size"
    assert Identity("device", 7, 0, SIZE).changed(Identity("device", 8, 0, SIZE, which="serial:A")) is None
    assert Identity("device", 7, 0, SIZE).changed(Identity("device", 8, 0, 1, which="serial:A")) == "size"
    assert replace(file, proof=Proof.NOTHING).changed(file) is None
