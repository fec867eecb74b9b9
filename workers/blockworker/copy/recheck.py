"""A second reading of a source: whether the source still matches the digests of its copy.

For sources whose time stamps prove nothing, as in memory, where reading costs little. If every chunk is the same when
read twice, the copy equals the source at an instant between the readings: when the first reading ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blockworker.copy.digests import CHUNK, LENGTH, ZERO, DigestFile, chunk_digest
from blockworker.copy.plan import pieces_of_ranges
from blockworker.volumes.base import Source

_BLOCK: Final = 1 << 15  # chunks whose digests are read at once: 1 MiB of digests


def find_difference(source: Source, digests: DigestFile, point: Callable[[], None]) -> int | None:
    """The offset of the first chunk that differs from its digest; None if every chunk matches.

    ``point`` is called between two chunks, and may raise.

    Raises:
        VolumeError: the source or the digests cannot be read.
    """
    buffer = bytearray(CHUNK)
    for piece in pieces_of_ranges(source, [(0, source.size)], CHUNK):
        first, last = piece.start // CHUNK, -(-piece.end // CHUNK)
        if not piece.data:
            for index in range(first, last, _BLOCK):
                point()
                count = min(_BLOCK, last - index)
                values = digests.get(index, count)
                if values.count(0) != count * LENGTH:
                    return piece.start
            continue
        point()
        view = memoryview(buffer)[: piece.end - piece.start]
        source.pread_into(view, piece.start)
        value = ZERO if bytearray(len(view)) == view else chunk_digest(view)
        if digests.get(first) != value:
            return piece.start
    return None
