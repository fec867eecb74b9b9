"""Sources: holes are found, an early end is an error, and blkdebug fails where it was told to."""

from __future__ import annotations

import errno
import os

import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import VolumeError
from blockworker.volumes import Extent, Identity, NullTarget, filter_target, open_source

MIB = 1 << 20


@pytest.fixture
def opened(site):
    """Open a volume by its keys; closed at the end."""
    sources = []

    def open_it(**keys):
        source = open_source(volumespec.parse_volume({"host": "web1", **keys}).volume, site.roots)
        sources.append(source)
        return source

    yield open_it
    for source in sources:
        source.close()


def read(source, offset, length):
    buffer = bytearray(length)
    source.pread_into(memoryview(buffer), offset)
    return bytes(buffer)


def sparse(site):
    """AAAA----BB: 4 MiB of data, 4 of hole, 2 of data."""
    path = site.images / "sparse.img"
    with path.open("wb") as file:
        file.write(b"A" * 4 * MIB)
        file.seek(8 * MIB)
        file.write(b"B" * 2 * MIB)
    return path


def test_a_file_knows_its_holes(site, opened):
    source = opened(driver="file", filename=str(sparse(site)))
    expected = [Extent(0, 4 * MIB, True), Extent(4 * MIB, 4 * MIB, False), Extent(8 * MIB, 2 * MIB, True)]  # noqa: FBT003
    assert list(source.extents(0, source.size)) == expected
    assert list(source.extents(5 * MIB, MIB)) == [Extent(5 * MIB, MIB, False)]  # noqa: FBT003
    assert source.size == 10 * MIB
    assert source.allocated() <= 6 * MIB + 65536
    assert read(source, 4 * MIB - 2, 4) == b"AA\0\0"


def test_a_file_of_nothing_but_hole_is_one_hole(site, opened):
    path = site.images / "hole.img"
    path.touch()
    os.truncate(path, 1 << 40)
    source = opened(driver="file", filename=str(path))
    assert [(extent.length, extent.data) for extent in source.extents(0, source.size)] == [(1 << 40, False)]


def test_a_file_that_became_shorter_is_an_error_and_not_zeros(site, opened):
    path = site.image(b"x" * 8192)
    source = opened(driver="file", filename=str(path))
    os.truncate(path, 4096)
    with pytest.raises(VolumeError, match="ended at 4096") as failed:
        read(source, 0, 8192)
    assert (failed.value.operation, failed.value.errno) == ("read", errno.EIO)


def test_an_identity_says_what_changed(site, opened):
    path = site.image()
    source = opened(driver="file", filename=str(path))
    before = Identity.from_list(source.identity().to_list())
    assert before.changed(source.identity()) == ""
    os.utime(path, ns=(1, 1))
    assert before.changed(source.identity()) == "mtime"
    with path.open("ab") as file:
        file.write(b"more")
    assert before.changed(source.identity()) == "size"
    assert before.changed(opened(driver="null-co").identity()) is None


def test_null_reads_as_zeros_or_as_garbage_that_does_not_change(opened):
    zeros = opened(driver="null-co", size=3 * MIB, **{"read-zeroes": True})
    garbage = opened(driver="null-co", size=3 * MIB)
    assert read(zeros, 5, 3 * MIB - 5) == bytes(3 * MIB - 5)
    assert read(garbage, 0, 3 * MIB) == read(garbage, 0, 3 * MIB) != bytes(3 * MIB)
    assert [extent.data for extent in zeros.extents(0, zeros.size)] == [False]
    assert [extent.data for extent in garbage.extents(0, garbage.size)] == [True]


def debug(site, **rule):
    return {"driver": "blkdebug", "image": {"driver": "file", "filename": str(sparse(site))}, "inject-error": [rule]}


@pytest.mark.parametrize(
    ("offset", "length", "fails"),
    [(0, 1024, False), (512, 1024, True), (1024, 512, True), (1024, 1, True), (1536, 512, False), (1535, 1, True)],
    ids=["before", "over", "exactly", "its first byte", "behind", "its last byte"],
)
def test_a_bad_sector_fails_the_requests_that_touch_it(site, opened, offset, length, fails):
    source = opened(**debug(site, iotype="read", sector=2, errno=5))
    if not fails:
        assert read(source, offset, length) == b"A" * length
        return
    with pytest.raises(VolumeError, match="Input/output error") as failed:
        read(source, offset, length)
    assert (failed.value.operation, failed.value.errno) == ("read", errno.EIO)


def test_once_is_once(site, opened):
    source = opened(**debug(site, once=True, errno=28))
    with pytest.raises(VolumeError, match="No space left"):
        read(source, 0, 4)
    assert read(source, 0, 4) == b"AAAA"


def test_a_bad_sector_in_a_hole_has_to_be_read(site, opened):
    source = opened(**debug(site, sector=6 * MIB // 512))
    assert [(extent.start, extent.length) for extent in source.extents(0, source.size) if extent.data] == [
        (0, 4 * MIB), (6 * MIB, 512), (8 * MIB, 2 * MIB),
    ]  # fmt: skip
    assert sum(extent.length for extent in source.extents(0, source.size)) == source.size


def test_a_debugged_target_fails_by_kind_of_request():
    rules = [{"iotype": "write-zeroes", "errno": 28}, {"iotype": "flush", "errno": 5}]
    volume = volumespec.parse_volume(
        {"host": "h", "driver": "blkdebug", "image": {"driver": "null-co"}, "inject-error": rules}
    ).volume
    target = filter_target(volume, NullTarget(MIB))
    target.pwrite(memoryview(b"x"), 0)
    with pytest.raises(VolumeError) as zeroed:
        target.zero(0, 512)
    assert (zeroed.value.operation, zeroed.value.errno) == ("write", errno.ENOSPC)
    with pytest.raises(VolumeError) as flushed:
        target.flush()
    assert flushed.value.operation == "flush"
    assert target.size == MIB
    target.close()
