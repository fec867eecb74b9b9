"""A source that somebody writes to is not read as it is, unless that is what was asked for."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager

import pytest
from mounts import PATH, mounted
from unmounting import unmount

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import Host
from blockworker.drivers.backup import Backup
from blockworker.drivers.mirror import Mirror
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.questions.forecast import forecast_job
from blockworker.volumes.in_use import expect_still

MIB = 1 << 20
LOCK = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for byte in map(int, sys.argv[2:]):
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path, *locked):
    """Another process has the file open, with locks on some bytes as QEMU's."""
    argv = [sys.executable, "-c", LOCK, str(path), *map(str, locked)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        yield
        process.stdin.close()


def opened(site, driver=None, **options):
    return (driver or Backup()).open(site.roots, site.spec(**options), lambda: True)


@pytest.mark.parametrize("byte", [101, 102, 103], ids=["write", "write-unchanged", "resize"])
def test_an_image_that_qemu_writes_to_is_refused(site, byte):
    with held(site.image(), byte), pytest.raises(JobFailed, match=r"is in use \(QEMU writes to it\)") as refused:
        opened(site)
    assert refused.value.errno == errno.EBUSY
    assert "a snapshot was expected, or 'live: true'" in refused.value.text
    assert site.tree() == []


@pytest.mark.parametrize("locked", [(), (100,), (100, 201, 203)], ids=["open", "read", "read, and nobody may write"])
def test_an_image_that_is_merely_open_is_not_in_use(site, locked):
    with held(site.image(), *locked):
        assert opened(site).size == 2 * MIB + 4


def test_live_reads_it_as_it_is_and_a_mirror_always_does(site):
    with held(site.image(), 101):
        opened(site, live=True)
        opened(site, Mirror(), id="R.m", target=volumespec.parse_volume(f"web1:{site.backup}/R/m.img"), type="mirror")


def test_so_it_is_without_a_target_of_ours(site):
    target = volumespec.parse_volume({"driver": "null-co", "host": "web1"})
    with held(site.image(), 101):
        with pytest.raises(JobFailed, match="is in use"):
            opened(site, target=target)
        assert opened(site, target=target, live=True).size == 2 * MIB + 4


def test_what_is_cut_may_be_in_use(tmp_path, site_at):
    with mounted("xfs", tmp_path / "xfs") as top:
        site = site_at(top / "host", cuts=True)
        with held(site.image(), 101):
            assert opened(site).cut == "reflink"


needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-nbd"), reason="qemu-utils is not installed: `make tools` as root"
)


def greets(place):
    """Its socket is there before it has opened the image; it says a word only after that."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(10)
        try:
            talk.connect(str(place))
            return talk.recv(8) == b"NBDMAGIC"
        except (FileNotFoundError, ConnectionRefusedError):
            return False


@contextmanager
def exported(path, form, *words):
    """QEMU has the image open."""
    place = path.with_suffix(".sock")
    argv = ["qemu-nbd", "--persistent", "-f", form, "-k", str(place), *words, str(path)]
    process = subprocess.Popen(argv)
    try:
        for _ in range(1000):
            if greets(place):
                break
            select.select([], [], [], 0.01)
        yield
    finally:
        process.kill()
        process.wait()


@needs_qemu
def test_qemu_itself_is_noticed(site):
    """The numbers of the bytes are QEMU's: asked of QEMU, not of a table."""
    with exported(site.image(), "raw"), pytest.raises(JobFailed, match="QEMU writes to it"):
        expect_still(site.spec().source.volume, site.roots)
    with exported(site.image(), "raw", "--read-only"):
        expect_still(site.spec().source.volume, site.roots)


@needs_qemu
def test_an_image_of_a_format_in_use_is_cut_or_refused_but_never_read_as_it_is(tmp_path, site_at):
    def image(site):
        path = site.images / "guest.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M"], check=True)
        keys = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}, "host": "web1"}
        return path, volumespec.parse_volume(keys)

    site = site_at(tmp_path / "plain")
    path, source = image(site)
    with exported(path, "qcow2"), pytest.raises(JobFailed, match=r"in use .*: a snapshot was expected$"):
        opened(site, source=source, live=True)
    with mounted("xfs", tmp_path / "xfs") as top:
        site = site_at(top / "host", cuts=True)
        path, source = image(site)
        with exported(path, "qcow2"):
            found = opened(site, source=source)
            assert (found.cut, found.size) == ("reflink", 4 * MIB)
            spec = site.spec(source=source)
            cut = Backup().cut(site.roots, spec, {})
        assert cut.identity[3] == 4 * MIB


def layered(site):
    """An image on a raw layer: the layer's path, and the source."""
    low, top = site.images / "low.img", site.images / "top.qcow2"
    low.write_bytes(b"L" * (2 * MIB))
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(low), "-F", "raw", str(top)]
    subprocess.run(argv, check=True)
    file = {"driver": "file", "filename": str(top)}
    keys = {"driver": "qcow2", "host": "web1", "file": file, "backing": {"driver": "file", "filename": str(low)}}
    return low, volumespec.parse_volume(keys)


@needs_qemu
@pytest.mark.parametrize("options", [{}, {"live": True}, {"snapshot": "none"}], ids=["auto", "live", "no snapshot"])
def test_a_layer_that_qemu_writes_to_is_refused_whatever_the_top_is(site, options):
    low, source = layered(site)
    with exported(low, "raw"), pytest.raises(JobFailed, match=rf"layer {low} of source .* is in use") as refused:
        opened(site, source=source, **options)
    assert refused.value.errno == errno.EBUSY
    assert site.tree() == []
    with exported(low, "raw", "--read-only"):
        opened(site, source=source, **options)


@needs_qemu
def test_a_layer_that_qemu_writes_to_is_refused_though_the_top_is_cut(tmp_path, site_at):
    with mounted("xfs", tmp_path / "xfs") as top:
        site = site_at(top / "host", cuts=True)
        low, source = layered(site)
        with exported(low, "raw"), pytest.raises(JobFailed, match="is in use"):
            opened(site, source=source)
        assert opened(site, source=source).cut == "reflink"


@needs_qemu
def test_a_cut_of_an_image_that_qemu_writes_to_claims_no_instant(tmp_path, site_at):
    with mounted("xfs", tmp_path / "xfs") as top:
        site = site_at(top / "host", cuts=True)
        _, source = layered(site)
        image = site.images / "top.qcow2"
        raw = volumespec.parse_volume(f"web1:{site.image()}")

        def made(name, of=source, **options):
            spec = site.spec(name, f"{name}/x.img", source=of, **options)
            opened(site, **{"source": of, "id": spec.id, "target": spec.target, **options})
            told = forecast_job(site.roots, spec)["warnings"]
            cut = Backup().cut(site.roots, spec, {})
            assert bool(told) == (cut.consistency == "crash")
            return cut.consistency, cut.told().get("consistency")

        assert made("R.still") == ("", None)
        with exported(image, "qcow2"):
            assert made("R.written") == ("crash", "crash")
            assert made("R.quiesced", options={"quiesce": "copy"}) == ("", None)
        with exported(image, "qcow2", "--read-only"):
            assert made("R.read") == ("", None)
        with exported(site.images / "root.img", "raw"):
            assert made("R.raw", raw) == ("", None)
        assert made("R.later") == ("", None)


@pytest.fixture
def device(tmp_path):
    """A loop device, and where it can be mounted."""
    if os.geteuid():
        pytest.skip("only root has loop devices")
    disk = tmp_path / "disk"
    subprocess.run(["truncate", "-s", "16M", str(disk)], check=True)
    subprocess.run(["mke2fs", "-q", str(disk)], env={**os.environ, "PATH": PATH}, check=True)
    made = subprocess.run(["losetup", "-f", "--show", str(disk)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


def test_a_device_that_is_mounted_is_in_use(tmp_path, device):
    volume = volumespec.parse_volume({"driver": "host_device", "filename": device, "host": "web1"}).volume
    root = (str(tmp_path),)
    roots = Roots(HostConfig(name=Host("web1"), read_roots=root, write_roots=root, devices=(device,)))
    expect_still(volume, roots)
    top = tmp_path / "mnt"
    top.mkdir()
    subprocess.run(["mount", device, str(top)], check=True)
    try:
        with pytest.raises(JobFailed, match="it is mounted"):
            expect_still(volume, roots)
        expect_still(volume, roots, live=True)
    finally:
        unmount(top)


def test_our_own_question_disturbs_nobody(site):
    path = site.image()
    expect_still(site.spec().source.volume, site.roots)
    fd = os.open(path, os.O_RDWR)
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 100, 4, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    finally:
        os.close(fd)
