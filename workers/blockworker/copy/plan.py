"""What is left to copy, as a sequence of pieces: long holes, and what is left alone, whole; all else chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blockworker.volumes.base import Source


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk-aligned range; its data within, as ``(start, end)``; and what is left as it is (in a layer below)."""

    start: int
    end: int
    data: tuple[tuple[int, int], ...] = ()
    left: tuple[tuple[int, int], ...] = ()

    @property
    def bytes(self) -> int:
        """How much of it has to be read."""
        return sum(end - start for start, end in self.data)

    @property
    def holes(self) -> list[tuple[int, int]]:
        """What is to become zeros."""
        holes, here = [], self.start
        for start, end in sorted((*self.data, *self.left, (self.end, self.end))):
            if start > here:
                holes.append((here, start))
            here = end
        return holes


def pieces(source: Source, missing: Iterable[tuple[int, int]], chunk: int) -> Iterator[Piece]:
    """The missing ranges (aligned to ``chunk``, but for the end of the volume) as pieces, in order."""
    for start, end in missing:
        yield from _range(source, start, end, chunk)


def _range(source: Source, start: int, end: int, chunk: int) -> Iterator[Piece]:
    data: list[tuple[int, int]] = []  # of the chunk that begins at ``start``
    left: list[tuple[int, int]] = []
    for extent in source.extents(start, end - start):
        here, stop = extent.start, extent.start + extent.length
        while here < stop:
            border = min(start + chunk, end)
            if not extent.data and here == start and stop >= border:
                here = end if stop == end else start + (stop - start) // chunk * chunk
                yield Piece(start, here, left=() if extent.own else ((start, here),))
                start = here
                continue
            till = min(stop, border)
            if extent.data:
                data.append((here, till))
            elif not extent.own:
                left.append((here, till))
            here = till
            if here == border:
                yield Piece(start, border, tuple(data), tuple(left))
                start, data, left = border, [], []
