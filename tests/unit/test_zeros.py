"""Zeros: found by 64 KiB, never written where there is nothing to hide, paid for where only data can make them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import threading
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockjobs.model import volumespec
from blockworker.copy.digests import ZERO, chunk_digest
from blockworker.copy.engine import Copy
from blockworker.copy.ledger import Ledger, scratch_digest_file
from blockworker.copy.passes import Pass
from blockworker.copy.throttle import Throttle
from blockworker.copy.zeros import BLOCK, split_zeros, whole_blocks
from blockworker.targets.images import cluster_size
from blockworker.targets.staged import StagedTarget
from blockworker.volumes import NullTarget, open_source
from blockworker.volumes.extents import RangeSet
from blockworker.volumes.formats import FormatTarget
from blockworker.volumes.vmdk import table_faults

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-img"), reason="qemu-utils is not installed: `make tools` as root"
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=12))
def test_each_byte_is_data_or_zeros_and_only_zeros_are_called_so(parts):
    """Parts of some length in pages, each of data or zeros, some of them outside of the ranges that are asked for."""
    content, ranges = bytearray(), []
    for pages, full, asked in parts:
        if asked and pages:
            ranges.append((len(content), len(content) + pages * 4 * KIB))
        content += (b"\1" if full else b"\0") * (pages * 4 * KIB)
    data, zeros = split_zeros(memoryview(content), ranges)
    assert RangeSet(data + zeros) == RangeSet(ranges)
    assert sum(end - start for start, end in data + zeros) == sum(end - start for start, end in ranges)
    assert not any(any(content[start:end]) for start, end in zeros)
    for start, end in data:
        for block in range(start - start % BLOCK, end, BLOCK):
            assert any(content[max(block, start) : min(block + BLOCK, end)]), "no block is written that is all zeros"


def test_whole_blocks_are_those_that_are_touched():
    assert whole_blocks([(0, 1), (BLOCK - 1, BLOCK + 1), (5 * BLOCK, 5 * BLOCK + 9)], 6 * BLOCK - 7) == [
        (0, 2 * BLOCK), (5 * BLOCK, 6 * BLOCK - 7),
    ]  # fmt: skip


def finished(copy, woken):
    copy.start()
    deadline = time.monotonic() + 30
    while not copy.finished:
        assert time.monotonic() < deadline
        woken.wait(0.05)
        woken.clear()
        if copy.troubles:
            raise copy.troubles[0]
        if copy.flush_due:
            copy.recorded(copy.flush())
    copy.stop()
    copy.flush()
    return copy


def copied(source, target, *, throttle=None, **options):
    woken = threading.Event()
    return finished(
        Copy(source, target, size=source.size, done=RangeSet(), throttle=throttle or Throttle(), wake=woken.set,
             **options), woken,
    )  # fmt: skip


def sprinkled(site, size=16 * MIB, at=(5 * MIB + 3 * BLOCK,), length=BLOCK):
    """An image that is written from end to end, of zeros but for a block here and there."""
    content = bytearray(size)
    for start in at:
        content[start : start + length] = os.urandom(length)
    site.image(bytes(content))
    return bytes(content)


def image_target(site, form, **words):
    spec = site.spec(target=volumespec.parse_volume({"host": "web1", "driver": form, "file": {
        "driver": "file", "filename": f"{site.backup}/R/root.{form}"}}), **words)  # fmt: skip
    staged = StagedTarget.take(site.roots, site.opened(spec), 1)
    target = FormatTarget(spec.target.volume, staged, site.roots, compress=spec.compress)
    return target, staged, f"{site.backup}/R/{staged.member.staging}"


@pytest.mark.parametrize(("at", "room"), [
    ((5 * MIB + 3 * BLOCK,), BLOCK),
    ((0, 16 * MIB - BLOCK), 2 * BLOCK),
    ((MIB - BLOCK, MIB), 2 * BLOCK),
    ((7 * BLOCK + 1,), 2 * BLOCK),
], ids=["in the middle", "first and last", "across two chunks", "across two blocks"])  # fmt: skip
def test_what_is_mostly_zeros_takes_the_room_of_its_data(site, at, room):
    content = sprinkled(site, at=at)
    staged = StagedTarget.take(site.roots, site.opened(site.spec()), 1)
    with closing(open_source(site.spec().source.volume, site.roots)) as source, closing(staged):
        copy = copied(source, staged, digests=staged.digests)
        path = site.backup / "R" / staged.member.staging
        assert path.read_bytes() == content
        assert path.stat().st_blocks * 512 <= room + 8 * KIB
        assert (copy.bytes_read, copy.bytes_written, copy.bytes_zero) == (16 * MIB, room, 16 * MIB - room)
        for index in range(16):
            chunk = memoryview(content)[index * MIB : (index + 1) * MIB]
            assert staged.digests.get(index) == (chunk_digest(chunk) if any(chunk) else ZERO)


@needs_qemu
@pytest.mark.parametrize(("form", "compress"), [
    ("qcow2", False), ("qcow2", True), ("vmdk", False), ("vmdk", True),
])  # fmt: skip
def test_an_image_of_a_format_takes_the_room_of_its_data(site, form, compress):
    content = sprinkled(site, at=(5 * MIB + 3 * BLOCK, 9 * MIB + 100))
    target, _, path = image_target(site, form, compress=compress)
    with closing(open_source(site.spec().source.volume, site.roots)) as source, closing(target):
        copied(source, target, whole=BLOCK * compress, lanes=1 if compress else 2)
    subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", path, site.base / "back"], check=True)
    assert (site.base / "back").read_bytes()[: len(content)] == content
    plain = "-c" if compress else "-q"
    more = ["-o", "subformat=streamOptimized"] if form == "vmdk" and compress else []
    subprocess.run(
        ["qemu-img", "convert", plain, "-f", "raw", "-O", form, *more, site.images / "root.img", site.base / "peer"],
        check=True,
    )
    assert os.stat(path).st_blocks * 512 <= (site.base / "peer").stat().st_blocks * 512 + 64 * KIB


@needs_qemu
@pytest.mark.parametrize("cluster", ["64k", "1M", "2M"])
def test_an_image_with_larger_clusters_is_replaced_by_a_compressed_one(site_at, tmp_path, cluster):
    """A cluster is compressed once: whoever writes a part of it writes all of it."""
    site = site_at(tmp_path / "host", allow_overwrite=True)
    content = sprinkled(site, size=4 * MIB, at=(MIB + 3 * BLOCK, 2 * MIB, 3 * MIB + 9 * BLOCK), length=2 * BLOCK)
    old = site.backup / "R" / "root.qcow2"
    old.parent.mkdir()
    words = ["-o", f"cluster_size={cluster}", old, "4M"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)
    target, staged, path = image_target(site, "qcow2", compress=True, overwrite=True)
    whole = cluster_size(staged.member.words)
    assert whole == {"64k": BLOCK, "1M": MIB, "2M": MIB}[cluster]
    with closing(open_source(site.spec().source.volume, site.roots)) as source, closing(target):
        copied(source, target, whole=whole)
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, site.base / "back"], check=True)
    assert (site.base / "back").read_bytes() == content


def test_a_pass_of_a_mirror_writes_only_the_blocks_that_hold_anything(site):
    site.image(b"x" * 4 * MIB)
    content = sprinkled(site, size=4 * MIB, at=(MIB + 5 * BLOCK,))
    staged = StagedTarget.take(site.roots, site.opened(site.spec()), 1)
    ledger, woken = Ledger(scratch_digest_file(4 * MIB), 4 * MIB), threading.Event()
    with closing(open_source(site.spec().source.volume, site.roots)) as source, closing(staged):
        staged.pwrite(memoryview(b"x" * 4 * MIB), 0)  # what an earlier pass has written
        finished(
            Pass(source, staged, size=4 * MIB, ledger=ledger, throttle=Throttle(), wake=woken.set, granularity=65536,
                 lanes=2), woken,
        )  # fmt: skip
        path = site.backup / "R" / staged.member.staging
        assert path.read_bytes() == content
        assert path.stat().st_blocks * 512 <= 2 * BLOCK


# --- zeros that only data can make --------------------------------------------------------------------


class NoHoles(NullTarget):
    """A target without holes, that counts what is written to it."""

    def __init__(self, size):
        super().__init__(size)
        self.written = RangeSet()
        self.lock = threading.Lock()

    def zero(self, offset, length):
        return [(offset, offset + length)]

    def pwrite(self, view, offset):
        with self.lock:
            assert not self.written.meets(offset, offset + len(view)), "nothing is written twice"
            self.written.add(offset, offset + len(view))


@pytest.mark.parametrize("drawn", ["-" * 64, "0" * 64, "A0-A" * 16], ids=["holes", "zeros", "mixed"])
def test_zeros_that_are_written_are_counted_and_take_their_time(site, drawn):
    """Each letter is 128 KiB: A is data, 0 written zeros, a dash a hole."""
    path = site.image(b"")
    with path.open("r+b") as file:
        file.truncate(len(drawn) * 128 * KIB)
        for index, letter in enumerate(drawn):
            if letter != "-":
                file.seek(index * 128 * KIB)
                file.write((b"\0" if letter == "0" else b"A") * 128 * KIB)
    size, speed = 8 * MIB, 8 * MIB
    target = NoHoles(size)
    with closing(open_source(site.spec().source.volume, site.roots)) as source:
        began = time.monotonic()
        copy = copied(source, target, throttle=Throttle(speed), hole_step=MIB)
        took = time.monotonic() - began
    assert target.written == RangeSet([(0, size)])
    assert copy.bytes_written == size
    assert took >= size / speed * 0.7, "a limit holds for zeros as well"


@pytest.mark.parametrize("order", ["hold", "stop"])
def test_zeros_that_are_written_are_no_reason_to_wait(site, order):
    os.truncate(site.image(b""), 64 * MIB)
    target, woken = NoHoles(64 * MIB), threading.Event()
    with closing(open_source(site.spec().source.volume, site.roots)) as source:
        copy = Copy(source, target, size=source.size, done=RangeSet(), throttle=Throttle(MIB), wake=woken.set)
        copy.start()
        deadline = time.monotonic() + 10
        while not copy.bytes_written:
            assert time.monotonic() < deadline
            woken.wait(0.01)
        began = time.monotonic()
        getattr(copy, order)()
        assert time.monotonic() - began < 0.5
        before = copy.bytes_written
        assert not woken.wait(0.1)
        assert copy.bytes_written == before
        copy.stop()


# --- work follows data, not size ------------------------------------------------------------------------


@needs_qemu
@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_an_empty_image_of_terabytes_is_no_work_and_can_be_written_to(site, form):
    path = site.image(b"")
    os.truncate(path, 3 * TIB)
    with path.open("r+b") as file:
        file.seek(2 * TIB)
        file.write(b"data")
    began = time.monotonic()
    target, staged, staging = image_target(site, form)
    with closing(open_source(site.spec().source.volume, site.roots)) as source, closing(target):
        copied(source, target)
        back = bytearray(8)
        target.pread_into(memoryview(back), 2 * TIB)
        assert back == b"data\0\0\0\0"
    if form == "vmdk":
        with open(staging, "rb") as file:
            assert table_faults(file.fileno(), "it") == []
    assert time.monotonic() - began < 5
    assert os.stat(staging).st_blocks * 512 < 4 * MIB
    assert staged.member.size == 3 * TIB


@pytest.mark.parametrize("known", [True, False], ids=["known", "known in part"])
def test_a_pass_over_terabytes_of_holes_looks_at_none_of_them(known):
    size = 15 * TIB
    ledger = Ledger(scratch_digest_file(size), size)
    ledger.zero(0, size // MIB)
    if not known:
        ledger.forget(1234, 1235)
    began = time.process_time()
    assert ledger.not_zero(0, size // MIB) == ([] if known else [(1234, 1235)])
    assert time.process_time() - began < 1


@needs_qemu
@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_an_image_that_was_written_before_becomes_zeros_where_its_source_is(site, form):
    """An attempt that goes on does not know what the one before it wrote."""
    content = b"A" * MIB + bytes(2 * MIB) + b"B" * MIB
    site.image(content)
    target, staged, path = image_target(site, form)
    target.pwrite(memoryview(b"x" * 4 * MIB), 0)
    target.flush()
    target.close()
    again = StagedTarget.take(site.roots, staged.member, 2)
    assert not again.fresh
    volume = volumespec.parse_volume({"host": "web1", "driver": form, "file": {
        "driver": "file", "filename": f"{site.backup}/R/root.{form}"}}).volume  # fmt: skip
    second = FormatTarget(volume, again, site.roots, compress=False)
    with closing(open_source(site.spec().source.volume, site.roots)) as source, closing(second):
        copy = copied(source, second, hole_step=GIB)
    subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", path, site.base / "back"], check=True)
    assert (site.base / "back").read_bytes() == content
    assert copy.bytes_written == (4 * MIB if form == "vmdk" else 2 * MIB), "in a vmdk zeros over data are data"


# --- the tables of a vmdk -------------------------------------------------------------------------------


@pytest.fixture
def vmdk(tmp_path):
    """A vmdk of 8 MiB with data in the first and the last grain."""
    path = tmp_path / "disk.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", path, "8M"], check=True)
    words = ["-c", "write -P 1 0 64k", "-c", "write -P 2 8128k 64k"]
    subprocess.run(["qemu-io", "-f", "vmdk", *words, path], check=True, stdout=subprocess.DEVNULL)
    return path


def damaged(path, offset, value):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<I", value))


def checked(path):
    with path.open("rb") as file:
        return table_faults(file.fileno(), "disk.vmdk")


@needs_qemu
@pytest.mark.parametrize("what", ["a grain", "a table", "cut"])
def test_a_vmdk_whose_tables_lead_out_of_its_file_is_damaged(vmdk, what):
    assert checked(vmdk) == []
    (directory,) = struct.unpack_from("<Q", vmdk.read_bytes(), 56)
    (table,) = struct.unpack_from("<I", vmdk.read_bytes(), directory * 512)
    match what:
        case "a grain":
            damaged(vmdk, table * 512, 1 << 24)
        case "a table":
            damaged(vmdk, directory * 512, 1 << 24)
        case _:
            os.truncate(vmdk, vmdk.stat().st_size - 65 * KIB)
    said = subprocess.run(["qemu-img", "check", "-q", "-f", "vmdk", vmdk], check=False).returncode
    assert said or what == "a table", "QEMU takes a table beyond the end for one of zeros: all its data would be gone"
    (fault,) = checked(vmdk)
    assert fault.startswith("disk.vmdk: the tables of the vmdk are damaged: ")


@pytest.mark.parametrize("content", [b"", b"KDMV", b"COWD" + bytes(100), b"KDMV" + bytes(600)])
def test_what_is_no_vmdk_has_no_tables(tmp_path, content):
    (tmp_path / "disk.vmdk").write_bytes(content)
    (fault,) = checked(tmp_path / "disk.vmdk")
    assert fault.startswith("disk.vmdk: the tables of the vmdk are damaged: ")
