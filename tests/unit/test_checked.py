"""A published image as a source: nothing of a chunk is given before it was compared."""

from __future__ import annotations

import errno
import os
from contextlib import closing

import pytest
from sparse import proven

from blockjobs.model.errors import VolumeError
from blockjobs.model.volumespec import InjectedError
from blockworker.copy.checked_source import CheckedSource, Tolerate
from blockworker.copy.digests import ZERO, chunk_digest
from blockworker.copy.plan import pieces_of_ranges
from blockworker.copy.proven import ProvenDigests
from blockworker.drivers.verify import said_of
from blockworker.volumes.blkdebug import DebugSource
from blockworker.volumes.file import FileSource

MIB = 1 << 20
IMAGE = b"A" * MIB + bytes(MIB) + b"C" * (MIB // 2) + bytes(MIB // 2) + b"tail"  # "A0Ct", the C half a hole


def digests(content: bytes) -> bytes:
    chunks = [content[at : at + MIB] for at in range(0, len(content), MIB)]
    return b"".join(chunk_digest(memoryview(chunk)) if any(chunk) else ZERO for chunk in chunks)


@pytest.fixture
def make(tmp_path):
    made = []

    def make(content: bytes = IMAGE, *, of: bytes = IMAGE, offset: int = 0, size: int = -1, **more) -> CheckedSource:
        path = tmp_path / "image"
        with path.open("wb") as file:
            for at in range(0, len(content), 4096):
                if any(content[at : at + 4096]):
                    file.seek(at)
                    file.write(content[at : at + 4096])
            file.truncate(len(content))
        source = CheckedSource(
            FileSource(os.open(path, os.O_RDONLY), "image"), "image", whole=len(of), digests=proven(digests(of)),
            offset=offset, size=len(of) - offset if size < 0 else size, **more,
        )  # fmt: skip
        made.append(source)
        return source

    yield make
    for source in made:
        source.close()


def read(source: CheckedSource, start: int, length: int) -> bytes:
    view = memoryview(bytearray(b"?" * length))
    source.pread_into(view, start)
    return bytes(view)


def copied(source: CheckedSource) -> bytes:
    """What the engine's plan makes of it."""
    content = bytearray(b"?" * source.size)
    for piece in pieces_of_ranges(source, [(0, source.size)], MIB):
        content[piece.start : piece.end] = bytes(piece.end - piece.start)
        for start, end in piece.data:
            content[start:end] = read(source, start, end - start)
    return bytes(content)


@pytest.mark.parametrize(
    ("offset", "size"), [(0, -1), (MIB, -1), (5, 7), (MIB - 1, MIB + 2), (777, 2 * MIB), (3 * MIB, 4)]
)
def test_every_range_is_what_the_image_holds(make, offset, size):
    source = make(offset=offset, size=size)
    assert copied(source) == IMAGE[offset : offset + source.size]
    assert sum(extent.length for extent in source.extents(0, source.size)) == source.size


def test_holes_are_told_also_within_a_chunk(make):
    told = [(extent.start, extent.length) for extent in make().extents(0, len(IMAGE)) if extent.data]
    assert told[0] == (0, MIB)
    assert told[1] == (2 * MIB, MIB // 2)


@pytest.mark.parametrize("at", [0, MIB - 1, MIB, 2 * MIB + 5, 2 * MIB + MIB // 2 + 9, len(IMAGE) - 1])
def test_a_byte_that_changed_is_found_wherever_it_is_and_only_its_chunk(make, at):
    content = bytearray(IMAGE)
    content[at] ^= 1
    first = at - at % MIB
    end = min(first + MIB, len(IMAGE))
    with pytest.raises(VolumeError, match=f"bytes {first} to {end} differ from the digests") as found:
        copied(make(bytes(content)))
    assert (found.value.operation, found.value.offset) == ("digest", first)
    with pytest.raises(VolumeError):  # also by one who wants another part of the chunk
        read(make(bytes(content)), first if at != first else first + 1, 1)
    forced = make(bytes(content), on=Tolerate.DIFFERENCES)
    assert copied(forced) == content
    assert forced.differing == [[first, end]]


def test_a_range_does_not_fail_by_what_lies_beside_it(make):
    content = bytearray(IMAGE)
    content[MIB // 2] ^= 1
    assert copied(make(bytes(content), offset=MIB)) == IMAGE[MIB:]


@pytest.mark.parametrize("content", [bytes(MIB) + IMAGE[MIB:], IMAGE[: 2 * MIB], IMAGE[:-1], b""])
def test_what_became_a_hole_or_was_cut_off_is_found(make, content):
    with pytest.raises(VolumeError, match="differ from the digests"):
        copied(make(content))
    assert copied(make(content, on=Tolerate.DIFFERENCES)) == content.ljust(len(IMAGE), b"\0")


def test_without_digests_nothing_is_compared(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"anything")
    source = CheckedSource(FileSource(os.open(path, os.O_RDONLY), "i"), "i", whole=8, digests=None, size=8)
    assert copied(source) == b"anything"
    assert not source.compares
    source.close()


def test_what_cannot_be_read_stops_a_reader_but_one_who_wants_to_know_all_that_is_bad(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(IMAGE[:-1] + b"?")
    bad = InjectedError(iotype="read", errno=errno.EIO, sector=MIB // 512)

    def source(on: Tolerate) -> CheckedSource:
        image = DebugSource(FileSource(os.open(path, os.O_RDONLY), "image"), (bad,))
        return CheckedSource(image, "image", whole=len(IMAGE), digests=proven(digests(IMAGE)), size=len(IMAGE), on=on)

    for on in (Tolerate.NOTHING, Tolerate.DIFFERENCES):
        with closing(source(on)) as stops, pytest.raises(VolumeError) as failed:
            stops.check(0, len(IMAGE))
        assert (failed.value.operation, failed.value.errno) == ("read", errno.EIO)
    with closing(source(Tolerate.ERRORS)) as goes_on:
        goes_on.check(0, len(IMAGE))
        assert (goes_on.unreadable, goes_on.differing) == ([[MIB, 2 * MIB]], [[3 * MIB, len(IMAGE)]])
        assert said_of(goes_on) == (
            "bytes 1048576 to 2097152 cannot be read; bytes 3145728 to 3145732 differ from the digests of its manifest"
        )


def test_digests_that_change_while_the_image_is_compared_are_noticed(tmp_path):
    path = tmp_path / "digests"
    path.write_bytes(digests(IMAGE))
    with closing(ProvenDigests(os.open(path, os.O_RDONLY), "digests")) as proved:
        with path.open("r+b") as file:
            file.write(b"changed")
        with pytest.raises(VolumeError, match="were changed while the image was compared with them") as failed:
            proved.get(0)
        assert failed.value.errno == errno.EBADMSG
