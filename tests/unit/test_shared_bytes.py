"""Volumes that share bytes are known to meet, whatever they are called: on the host, and in the registry's locks."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from mounts import mounted

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockworker.drivers.backup import Backup
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.volumes.overlap import Span, have_common_bytes, lock_text, spans_of

MIB = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (Span("8:0"), Span("8:0"), True),
        (Span("8:0"), Span("8:16"), False),
        (Span("8:0", 0, 10), Span("8:0", 10, 20), False),
        (Span("8:0", 0, 11), Span("8:0", 10, 20), True),
        (Span("8:0", exact=False), Span("8:0", 10, 20), True),
        (Span("8:0", exact=False), Span("8:0", exact=False), False),
        (Span("8:0", 0, 10, exact=False), Span("8:0", 10, 20), False),
    ],
    ids=[
        "the same", "two media", "neighbours", "by one byte", "a logical volume and a partition of its disk",
        "two logical volumes of one disk", "a logical volume in the partition beside",
    ],
)  # fmt: skip
def test_spans_meet_where_they_certainly_share_bytes(one, other, together):
    assert (have_common_bytes([one], [other]), have_common_bytes([other], [one])) == (together, together)


def test_a_lock_names_the_thing_first_and_what_it_lies_on_behind():
    spans = [Span("2065:0", own=True), Span("2064:0", 512, 1024), Span("2049:12", exact=False)]
    assert lock_text(spans) == "2065:0\n^2064:0\n^2049:12"


class Bench:
    """A host that reads beneath one directory, and reads and writes the loop devices that a test makes."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place, self._stack = place, stack
        self.devices: list[str] = []

    def disk(self, name: str, size: int = 16 * MIB) -> Path:
        path = self.place / name
        os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), size)
        return path

    def loop(self, on: str | Path, *words: str) -> str:
        argv = ["losetup", "-f", "--show", *words, str(on)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no loop device: {done.stderr.strip()}")
        device = done.stdout.strip()
        self._stack.callback(subprocess.run, ["losetup", "-d", device], check=True)
        self.devices.append(device)
        return device

    def partitions(self, *ranges: tuple[int, int]) -> tuple[str, list[str]]:
        """A disk with partitions, each from and for so many sectors."""
        disk = self.disk("partitioned")
        entries = b"".join(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\2\0", *each) for each in ranges)
        with open(disk, "r+b") as file:
            file.write(bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa")
        device = self.loop(disk, "-P")
        found = [f"{device}p{number}" for number in range(1, len(ranges) + 1)]
        if not all(map(os.path.exists, found)):
            subprocess.run(["partx", "-a", device], capture_output=True, check=False)
        if not all(map(os.path.exists, found)):
            pytest.skip("this kernel makes no partitions of loop devices")
        self.devices += found
        return device, found

    def open(self, source: str | Path, target: str) -> str:
        """OPEN of a copy in place; the locks of the target."""
        root = (str(self.place),)
        config = HostConfig(
            name=Host("h"), read_roots=root, write_roots=root, allow_in_place=True, devices=tuple(self.devices)
        )
        spec = JobSpec(
            id=JobId("R.a"), transaction=TxnId("R"), run=RunId("R"), source=volumespec.parse_volume(f"h:{source}"),
            target=volumespec.parse_volume({"driver": "host_device", "host": "h", "filename": target}), in_place=True,
        )  # fmt: skip
        driver, roots = Backup(), Roots(config)
        try:
            return driver.open(roots, spec, lambda: True).writes
        finally:
            driver.abort(roots, spec, 1, opened=True)


@pytest.fixture
def bench(tmp_path):
    with ExitStack() as stack:
        yield Bench(tmp_path, stack)


def refused(bench, source, target):
    with pytest.raises(JobFailed, match="is the source itself, lies in it, or contains it") as why:
        bench.open(source, target)
    assert why.value.errno == errno.EINVAL


@needs_root
def test_a_disk_and_its_partition_meet_and_two_partitions_do_not(bench):
    disk, (first, second) = bench.partitions((2048, 4096), (8192, 16384))
    refused(bench, first, disk)
    refused(bench, disk, first)
    refused(bench, first, first)
    names = bench.open(first, second).split("\n")
    assert names[0] == f"{os.stat(second).st_rdev}:0"
    assert f"^{os.stat(disk).st_rdev}:0" in names


@needs_root
def test_a_loop_device_meets_its_file_its_device_and_another_loop_on_the_same_bytes(bench):
    disk = bench.disk("disk")
    below = bench.loop(disk)
    refused(bench, disk, below)
    above = bench.loop(below)
    refused(bench, above, below)
    refused(bench, below, above)
    refused(bench, disk, above)
    twin = bench.loop(disk)
    refused(bench, twin, below)
    half = bench.disk("halves")
    words = ("--sizelimit", str(8 * MIB))
    lower, upper = bench.loop(half, *words), bench.loop(half, "--offset", str(8 * MIB), *words)
    bench.open(lower, upper)
    refused(bench, half, upper)


@needs_root
def test_an_alias_of_the_source_is_the_source(bench):
    device = bench.loop(bench.disk("disk"))
    alias = f"/dev/blockjobs-test-{os.getpid()}"
    os.symlink(device, alias)
    try:
        bench.devices.append(alias)
        refused(bench, device, alias)
        refused(bench, alias, device)
    finally:
        os.unlink(alias)


@needs_root
def test_a_file_lies_on_the_device_that_holds_its_file_system(tmp_path):
    with mounted("xfs", tmp_path / "mounted") as top:
        (top / "image").write_bytes(b"x")
        (tmp_path / "beside").write_bytes(b"x")
        find = ["findmnt", "-no", "SOURCE", str(top)]
        device = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
        inside, disk, beside = map(spans_at, (top / "image", device, tmp_path / "beside"))
        assert have_common_bytes(inside, disk)
        assert not have_common_bytes(beside, disk)
        assert not have_common_bytes(inside, beside)


def spans_at(path):
    with open(path, "rb") as file:
        return spans_of(file.fileno())


@needs_root
def test_a_device_that_takes_no_writes_is_refused_before_anything_is_noted(bench):
    source = bench.disk("source", MIB)
    device = bench.loop(bench.disk("disk"), "--read-only")
    with pytest.raises(JobFailed, match="is a read-only device") as why:
        bench.open(source, device)
    assert why.value.errno == errno.EROFS
    assert not (bench.place / ".blockjobs" / "devices").exists()
