"""What is read from the medium is what lies there: not what somebody has left in the page cache."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from alone import Alone
from mounts import PATH, memory
from unmounting import unmount

from blockjobs.model import volumespec
from blockjobs.model.ids import Host
from blockworker.drivers.verify import Verify
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.system import kernel
from blockworker.targets import manifest
from blockworker.volumes import open_source
from blockworker.volumes.device import DeviceSource
from blockworker.volumes.direct import MediumFile, MediumReader, drop_cache, takes_direct

MIB = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


@contextmanager
def loop(file, *words):
    argv = ["losetup", "-f", "--show", *words, str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    try:
        yield done.stdout.strip()
    finally:
        subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


@contextmanager
def mounted(device, place):
    place.mkdir()
    subprocess.run(["mount", device, str(place)], check=True)
    try:
        yield place
    finally:
        unmount(place)


def content(read, size):
    """Read in pieces of every kind of alignment, into buffers of every kind of alignment."""
    pieces, room = random.Random(1), memoryview(bytearray(3 * MIB))  # noqa: S311
    found, here = bytearray(), 0
    while here < size:
        length = min(size - here, pieces.choice([1, 511, 512, 513, 4095, 4096, 65536, MIB, MIB + 7]))
        view = room[(first := pieces.choice([0, 1, 512])) : first + length]
        read(view, here)
        found += view
        here += length
    return bytes(found)


@pytest.mark.parametrize("size", [1, 511, 4096, 3 * MIB, 3 * MIB + 5])
def test_a_file_is_read_whole_whatever_its_tail_is(tmp_path, size):
    data = random.Random(size).randbytes(size)  # noqa: S311
    (tmp_path / "file").write_bytes(data)
    source = MediumFile(os.open(tmp_path / "file", os.O_RDONLY), "file")
    assert content(source.pread_into, size) == data
    assert source.from_medium == takes_direct(source._fd)
    source.close()


@needs_root
@pytest.mark.parametrize("block", [512, 4096])
def test_a_device_is_read_whole_whatever_its_blocks_are(tmp_path, block):
    data = random.Random(block).randbytes(4 * MIB + 4096)  # noqa: S311
    (tmp_path / "disk").write_bytes(data)
    with loop(tmp_path / "disk", "--sector-size", str(block)) as device:
        source = DeviceSource(os.open(device, os.O_RDONLY), device)
        assert content(source.pread_into, source.size) == data
        assert source.from_medium
        source.close()


@needs_root
def test_a_device_that_somebody_read_before_its_file_system_wrote_is_read_as_it_is_now(tmp_path):
    disk = tmp_path / "disk"
    os.truncate(os.open(disk, os.O_CREAT | os.O_WRONLY), 32 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(disk)], env={**os.environ, "PATH": PATH}, check=True)
    with loop(disk) as device, mounted(device, tmp_path / "mnt") as top:
        (top / "file").write_bytes(b"old!" * MIB)
        os.sync()
        Path(device).read_bytes()
        with open(top / "file", "r+b") as file:
            file.write(b"NEW!" * MIB)
            file.flush()
            os.fsync(file.fileno())
        source = DeviceSource(os.open(device, os.O_RDONLY), device)
        read = content(source.pread_into, source.size)
        source.close()
        cached = Path(device).read_bytes()
    assert (read.count(b"old!"), read.count(b"NEW!")) == (0, MIB)
    assert cached.count(b"old!") == MIB, "a read through the cache is stale: without that the test proves nothing"


def test_where_the_file_system_has_no_direct_reads_it_is_said(tmp_path):
    if (place := memory()) is None:
        pytest.skip("no tmpfs on this machine")
    file = place / f"blockjobs-{os.getpid()}"
    file.write_bytes(b"x" * MIB)
    try:
        fd = os.open(file, os.O_RDONLY)
        assert not takes_direct(fd)
        reader = MediumReader(fd, "file")
        assert reader.from_medium, "nothing was read"
        assert content(reader.read, MIB) == b"x" * MIB
        assert not reader.from_medium
        reader.close()
        os.close(fd)
    finally:
        file.unlink()


@needs_root
def test_what_is_dropped_from_the_cache_is_not_in_it_any_more(tmp_path):
    (tmp_path / "disk").write_bytes(b"x" * 4 * MIB)
    with loop(tmp_path / "disk") as device:
        fd = os.open(device, os.O_RDONLY)
        try:
            os.pread(fd, 2 * MIB, 0)
            assert kernel.cached_pages(fd, 0, 2 * MIB) > 0
            assert drop_cache(fd, 0, 2 * MIB)
            assert kernel.cached_pages(fd, 0, 2 * MIB) == 0
        finally:
            os.close(fd)


@needs_root
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_verify_finds_what_is_rotten_on_the_medium_and_sound_in_the_cache(tmp_path, site_at, form):
    disk, mark = tmp_path / "disk", b"MARK-%d " % os.getpid()
    os.truncate(os.open(disk, os.O_CREAT | os.O_WRONLY), 64 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(disk)], env={**os.environ, "PATH": PATH}, check=True)
    with ExitStack() as stack:
        device = stack.enter_context(loop(disk))
        top = stack.enter_context(mounted(device, tmp_path / "mnt"))
        image = published(site_at(top / "host"), form, os.urandom(MIB) + mark * 10000)
        os.sync()
        image.read_bytes()  # somebody has read it
        rot(disk, mark)
        assert mark in image.read_bytes(), "the cache is sound: without that the test proves nothing"
        found = manifest.verify_image(str(image), manifest.load_manifest(f"{image}.manifest.json"))
        assert (found.bad, found.from_medium) == (True, True)


def published(site, form, data):
    """An image whose source is gone."""
    source = site.image(data)
    target = {"driver": "file", "filename": f"{site.backup}/R/root.img"}
    if form != "raw":
        target = {"driver": form, "file": target}
    spec = site.spec(target=volumespec.parse_volume({**target, "host": "web1"}), snapshot="none")
    Alone(site.roots, spec).publish()
    source.unlink()
    return site.backup / "R/root.img"


def rot(disk, mark):
    """Change every mark on the medium, behind the back of the file system."""
    data, at, changed = disk.read_bytes(), -1, 0
    with open(disk, "r+b") as file:
        while (at := data.find(mark, at + 1)) >= 0:
            file.seek(at)
            file.write(b"X")
            changed += 1
        file.flush()
        os.fsync(file.fileno())
    assert changed >= 10000


@needs_root
def test_an_image_of_a_format_on_a_device_is_read_past_the_cache_of_the_device(tmp_path):
    if not shutil.which("qemu-nbd"):
        pytest.skip("QEMU's tools are not installed: `make tools` as root")
    disk = tmp_path / "disk"
    qcow2(disk, tmp_path, b"old!")
    with loop(disk) as device, open(device, "rb"):  # who closes it last drops its cache
        Path(device).read_bytes()
        qcow2(disk, tmp_path, b"NEW!")
        assert b"old!" in Path(device).read_bytes(), "a read through the cache is stale: else the test proves nothing"
        config = HostConfig(name=Host("h"), read_roots=(), write_roots=(), devices=(device,))
        keys = {"driver": "qcow2", "host": "h", "file": {"driver": "host_device", "filename": device}}
        source = open_source(volumespec.parse_volume(keys).volume, Roots(config))
        view = memoryview(bytearray(MIB))
        source.pread_into(view, 0)
        source.close()
    assert bytes(view) == b"NEW!" * (MIB // 4)


def qcow2(disk, tmp_path, word):
    """Make a file an image that is full of a word; in place, so that a loop device on it stays."""
    (tmp_path / "raw").write_bytes(word * (MIB // 4))
    argv = ["qemu-img", "convert", "-O", "qcow2", str(tmp_path / "raw"), str(tmp_path / "image")]
    subprocess.run(argv, check=True)
    with open(disk, "r+b" if disk.exists() else "w+b") as file:
        file.write((tmp_path / "image").read_bytes().ljust(4 * MIB, b"\0"))
        file.flush()
        os.fsync(file.fileno())


@pytest.mark.parametrize("medium", [True, False], ids=["a disk", "memory"])
def test_the_result_of_a_verification_says_where_it_was_read_from(tmp_path, site_at, medium):
    if (place := tmp_path if medium else memory()) is None:
        pytest.skip("no tmpfs on this machine")
    with tempfile.TemporaryDirectory(dir=place) as top:
        site = site_at(Path(top) / "host")
        image = published(site, "raw", b"x" * MIB)
        if medium != takes_direct(fd := os.open(image, os.O_RDONLY)):
            pytest.skip("the file system of the temporary files has no direct reads")
        os.close(fd)
        null = volumespec.parse_volume({"driver": "null-co", "host": "web1", "size": MIB})
        spec = site.spec(id="R.verify", type="verify", source=volumespec.parse_volume(f"web1:{image}"), target=null)
        assert Alone(site.roots, spec, Verify()).run()["from-medium"] is medium
