"""QEMU's image locks: QEMU does not start on what a job writes, a job does not write what QEMU has open."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from alone import Alone
from guests import detach, qemu, refusal
from unmounting import unmount

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed, SourceChanged
from blockjobs.model.ids import Host
from blockjobs.model.jobs import OnChange
from blockworker.drivers.backup import Backup
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.system import image_locks, kernel
from blockworker.targets import settle
from blockworker.targets.prepare import prepare_member
from blockworker.targets.proof import NotPublished
from blockworker.volumes.in_use import SourceWatch, expect_still

MIB = 1 << 20
pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-storage-daemon") or not shutil.which("qemu-img"),
    reason="QEMU's tools are not installed: `make tools` as root",
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"x" * MIB)
    return path


@contextmanager
def opened(path, flags=os.O_RDONLY):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def test_qemu_does_not_start_on_an_image_that_is_owned_and_starts_on_one_that_is_not(image, tmp_path):
    with opened(image) as fd:
        for writable in (True, False):
            assert refusal(image, tmp_path, writable=writable) == "", "without a lock"
        image_locks.lock_as_sole_writer(fd, "image")
        for writable in (True, False):
            assert "Failed to get" in refusal(image, tmp_path, writable=writable)
    assert refusal(image, tmp_path) == "", "the lock went with its descriptor"


@pytest.mark.parametrize("writable", [True, False], ids=["writes", "reads"])
def test_an_image_that_qemu_has_open_cannot_be_owned(image, tmp_path, writable):
    with opened(image) as fd:
        with qemu(image, tmp_path, writable=writable):
            assert image_locks.is_open(fd)
            assert image_locks.is_written(fd) == writable
            with pytest.raises(JobFailed, match="image is in use: QEMU has it open") as refused:
                image_locks.lock_as_sole_writer(fd, "image")
            assert refused.value.errno == errno.EBUSY
            with opened(image) as other:
                assert not image_locks.is_written(other) or writable, "a refusal leaves no lock"
        image_locks.lock_as_sole_writer(fd, "image")


def test_an_owner_uses_every_permission_and_shares_none(image):
    """The bytes of QEMU's protocol: 100 to 103 for what is used, 200 to 203 for what nobody else may use."""
    with opened(image) as fd, opened(image) as other:
        assert not any(kernel.is_range_locked(other, byte) for byte in range(100, 204))
        image_locks.lock_as_sole_writer(fd, "image")
        assert [byte for byte in range(100, 204) if kernel.is_range_locked(other, byte)] == [
            *range(100, 104),
            *range(200, 204),
        ]


def test_a_reader_that_shares_everything_keeps_nobody_from_starting(image, tmp_path):
    with opened(image) as fd:
        image_locks.lock_as_reader(fd)
        with qemu(image, tmp_path):
            assert image_locks.is_written(fd)
        with opened(image) as other:
            assert image_locks.is_open(other), "and whoever wants it alone sees the reader"


@pytest.fixture
def device(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 4 * MIB)
    attach = ["losetup", "-f", "--show", str(disk)]
    done = subprocess.run(attach, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    yield done.stdout.strip()
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


@needs_root
def test_a_device_is_written_in_place_only_while_qemu_does_not_have_it(tmp_path, device):
    root = (str(tmp_path),)
    config = HostConfig(name=Host("h"), read_roots=root, write_roots=root, allow_in_place=True, devices=(device,))
    roots = Roots(config)
    with (
        qemu(device, tmp_path),
        pytest.raises(JobFailed, match=f"target {device} on host h is in use: QEMU has it open"),
    ):
        roots.open_device(device, write=True)
    fd = roots.open_device(device, write=True)
    assert "Failed to get" in refusal(device, tmp_path)
    os.close(fd)
    assert refusal(device, tmp_path) == ""


@pytest.fixture
def disk(tmp_path):
    """A loop device with two partitions: the file that it lies in, the device, the partitions."""
    file = tmp_path / "partitioned"
    table = b"".join(
        struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\2\0", *each) for each in ((2048, 8192), (16384, 8192))
    )
    file.write_bytes(bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa" + bytes(16 * MIB))
    done = subprocess.run(["losetup", "-fP", "--show", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    parts = [f"{device}p1", f"{device}p2"]
    if not all(map(os.path.exists, parts)):
        subprocess.run(["partx", "-a", device], capture_output=True, check=False)
    try:
        if not all(map(os.path.exists, parts)):
            pytest.skip("this kernel makes no partitions of loop devices")
        yield str(file), device, *parts
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


RELATED = [(1, 2), (2, 1), (0, 1), (0, 2)]  # what the guest has, what is written: by their places in ``disk``


@needs_root
@pytest.mark.parametrize(("theirs", "ours"), RELATED, ids=["disk-part", "part-disk", "file-disk", "file-part"])
def test_what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use(site, tmp_path, disk, theirs, ours):
    roots = Roots(replace(site.roots.config, allow_in_place=True, devices=disk[1:]))
    with qemu(disk[theirs], tmp_path):
        with pytest.raises(JobFailed, match="QEMU has a device or file open that shares bytes with it") as refused:
            roots.open_device(disk[ours], write=True)
        assert refused.value.errno == errno.EBUSY
        with pytest.raises(JobFailed, match="QEMU writes to what shares bytes with it"):
            expect_still(volumespec.parse_volume(f"web1:{disk[ours]}").volume, roots)
    os.close(roots.open_device(disk[ours], write=True))
    with qemu(disk[3], tmp_path):
        if ours == 2:
            os.close(roots.open_device(disk[2], write=True))  # the partition beside: they share nothing


@needs_root
def test_a_guest_does_not_start_on_what_an_attempt_writes_a_part_of(site, tmp_path, disk):
    site.image()
    roots = Roots(replace(site.roots.config, allow_in_place=True, devices=disk[1:]))
    jobs = []
    for part in disk[2:]:  # two at a time: they share the disk and nothing else
        target = volumespec.parse_volume({"driver": "host_device", "host": "web1", "filename": part})
        spec = site.spec(f"R.{part[-2:]}", target=target, target_base="", in_place=True, snapshot="none")
        jobs.append(Alone(roots, spec))
    for place in disk:
        assert "Failed to get" in refusal(place, tmp_path)
    for job in jobs:
        job.run()
    for place in disk:
        assert refusal(place, tmp_path) == ""


@needs_root
def test_a_job_that_writes_a_part_keeps_nobody_from_reading_another_and_a_guest_is_seen(site, disk):
    """Of two partitions one is read while a job writes the other: both lie on the disk, and share nothing."""
    roots = Roots(replace(site.roots.config, devices=disk[1:]))
    volume = volumespec.parse_volume(f"web1:{disk[2]}").volume
    watch = SourceWatch(volume, roots)
    try:
        with opened(disk[1]) as part, opened(disk[1]) as guest:
            image_locks.write_a_part(part)
            expect_still(volume, roots)
            assert watch.writer() is None
            kernel.lock_shared(guest, 100 + image_locks.WRITE)
            kernel.lock_shared(guest, 200 + image_locks.WRITE)  # as a guest does, which shares its disk with nobody
            with pytest.raises(JobFailed, match="QEMU writes to what shares bytes with it"):
                expect_still(volume, roots)
            assert watch.writer().who == f"{disk[2]}: QEMU writes to it"
    finally:
        watch.close()


@needs_root
def test_a_device_that_is_mounted_while_it_is_read_is_seen(site, tmp_path, disk):
    roots = Roots(replace(site.roots.config, devices=disk[1:]))
    subprocess.run(["mkfs.ext4", "-q", disk[2]], check=True)
    (tmp_path / "mnt").mkdir()
    for read in disk[1:3]:
        watch = SourceWatch(volumespec.parse_volume(f"web1:{read}").volume, roots)
        try:
            assert watch.writer() is None
            subprocess.run(["mount", disk[2], tmp_path / "mnt"], check=True)
            try:
                assert watch.writer().who == f"{read}: it is mounted"
            finally:
                unmount(tmp_path / "mnt")
            assert watch.writer() is None
        finally:
            watch.close()


# --- sources --------------------------------------------------------------------------------------------


def layered(site):
    """A qcow2 on a raw layer."""
    low = site.image()
    top = site.images / "top.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(low), "-F", "raw", str(top)]
    subprocess.run(argv, check=True)
    return low, top, volumespec.parse_volume(
        {"driver": "qcow2", "host": "web1", "file": {"driver": "file", "filename": str(top)},
         "backing": {"driver": "file", "filename": str(low)}}
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["raw", "top", "layer"])
def test_a_guest_starts_on_what_is_read_and_that_ends_the_attempt(site, tmp_path, kind):
    low, top, volume = layered(site)
    if kind == "raw":
        volume = volumespec.parse_volume(f"web1:{low}")
    attempt, driver = Alone(site.roots, site.spec(source=volume, snapshot="none")), "qcow2" if kind == "top" else "raw"
    written = top if kind == "top" else low
    with ExitStack() as stack:
        attempt.between = lambda: stack.enter_context(qemu(written, tmp_path, driver=driver))
        with pytest.raises(SourceChanged, match=f"{written}: QEMU writes to it"):
            attempt.run()


@pytest.mark.parametrize(
    ("options", "writable", "said"),
    [({"live": True}, True, "unchanged"), ({"on_source_change": OnChange.REPORT}, True, "unchanged"),
     ({}, False, "unchanged")],
    ids=["live", "only reported", "a reader"],
)  # fmt: skip
def test_a_guest_that_may_be_there_ends_nothing(site, tmp_path, options, writable, said):
    path = site.image()
    attempt = Alone(site.roots, site.spec(source=volumespec.parse_volume(f"web1:{path}"), snapshot="none", **options))
    with ExitStack() as stack:
        attempt.between = lambda: stack.enter_context(qemu(path, tmp_path, writable=writable))
        assert attempt.run()["source-change"] == said


def test_a_guest_that_is_there_when_an_attempt_begins_ends_it(site, tmp_path):
    path = site.image()
    spec = volumespec.parse_volume(f"web1:{path}")
    attempt = Alone(site.roots, site.spec(source=spec, snapshot="none"))
    attempt.work.close()
    with qemu(path, tmp_path), pytest.raises(SourceChanged, match="QEMU writes to it"):
        Backup().attached(site.roots, attempt)


# --- what is replaced -----------------------------------------------------------------------------------


@pytest.fixture
def over(site):
    """A host that may overwrite, an image of its target's name, and the job."""
    allowed = replace(site, allow_overwrite=True)
    allowed.image()
    (allowed.backup / "R").mkdir()
    target = allowed.backup / "R/root.img"
    target.write_bytes(b"guest" * 1000)
    return allowed, target, allowed.spec(overwrite=True, snapshot="none")


def test_an_image_that_qemu_has_open_is_not_replaced_from_open_to_prepare(over, tmp_path):
    site, target, spec = over
    for writable in (True, False):
        with qemu(target, tmp_path, writable=writable), pytest.raises(JobFailed, match="QEMU has it open") as refused:
            Backup().open(site.roots, spec, lambda: True)
        assert refused.value.errno == errno.EBUSY
    member = site.copied(spec)
    with qemu(target, tmp_path):
        with pytest.raises(JobFailed, match="QEMU has it open"):
            Alone(site.roots, site.spec(source=spec.source, overwrite=True))
        with pytest.raises(JobFailed, match="QEMU has it open"):
            prepare_member(site.roots, member, ((0, member.size),), site.manifest(spec, member.size))
    prepare_member(site.roots, member, ((0, member.size),), site.manifest(spec, member.size))
    settle.commit_job(site.roots, spec, 1)
    assert target.read_bytes() == (site.images / "root.img").read_bytes()


def test_one_that_qemu_opened_since_prepare_is_left_and_published_once_it_is_closed(over, tmp_path):
    site, target, spec = over
    site.prepared(spec)
    with qemu(target, tmp_path):
        for _ in range(2):
            with pytest.raises(NotPublished, match="QEMU has it open"):
                settle.commit_job(site.roots, spec, 1)
            assert target.read_bytes() == b"guest" * 1000
    settle.commit_job(site.roots, spec, 1)
    assert target.read_bytes() == (site.images / "root.img").read_bytes()


def test_qemu_does_not_start_on_what_an_attempt_is_about_to_replace(over, tmp_path):
    site, target, spec = over
    attempt = Alone(site.roots, site.spec(source=spec.source, overwrite=True, snapshot="none"))
    for writable in (True, False):
        assert "Failed to get" in refusal(target, tmp_path, writable=writable)
    attempt.run()
    assert refusal(target, tmp_path) == "", "nothing is held between the attempt and the commit"


@needs_root
def test_a_file_that_a_loop_device_lies_in_is_not_replaced(over):
    site, target, spec = over
    done = subprocess.run(["losetup", "-f", "--show", str(target)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        with pytest.raises(JobFailed, match=f"is in use: {device} lies in it"):
            Backup().open(site.roots, spec, lambda: True)
    finally:
        detach(device)
    Alone(site.roots, spec).publish()
