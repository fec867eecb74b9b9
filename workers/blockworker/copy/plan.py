"""The missing part of a copy as a sequence of pieces: long holes and untouched ranges whole, else chunk by chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blockworker.volumes.base import Extent, Source, request_error


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk-aligned range; its data within, as ``(start, end)``; and the part left untouched (in a layer below)."""

    start: int
    end: int
    data: tuple[tuple[int, int], ...] = ()
    left: tuple[tuple[int, int], ...] = ()

    @property
    def bytes(self) -> int:
        """Number of bytes to be read."""
        return sum(end - start for start, end in self.data)

    @property
    def holes(self) -> list[tuple[int, int]]:
        """The parts that become zeros."""
        holes, here = [], self.start
        for start, end in sorted((*self.data, *self.left, (self.end, self.end))):
            if start > here:
                holes.append((here, start))
            here = end
        return holes


class Plan:
    """The pieces of the missing ranges, one by one. For one thread at a time.

    A source that fails to list its extents does no harm: the next call asks again, from the end of the last piece
    handed out.
    """

    def __init__(self, source: Source, missing: Iterable[tuple[int, int]], chunk: int, hole_step: int = 0) -> None:
        """``hole_step``: the most bytes of a piece that is only a hole, a multiple of ``chunk``; 0: any number."""
        self._source, self._chunk, self._step = source, chunk, hole_step
        self._missing = deque(missing)
        self._pieces: Iterator[Piece] | None = None

    def take_piece(self) -> Piece | None:
        """The next piece; None after the last piece.

        Raises:
            VolumeError: the source cannot list its next extents (``operation="read"``), or the list has gaps.
        """
        while self._missing:
            start, end = self._missing[0]
            if self._pieces is None:
                self._pieces = _pieces_of_range(self._source, start, end, self._chunk, self._step)
            try:
                piece = next(self._pieces, None)
            except BaseException:
                self._pieces = None
                raise
            if piece is not None:
                self._missing[0] = piece.end, end
                return piece
            self._pieces = None
            self._missing.popleft()
        return None


def pieces_of_ranges(
    source: Source, missing: Iterable[tuple[int, int]], chunk: int, hole_step: int = 0
) -> Iterator[Piece]:
    """The missing ranges (aligned to ``chunk``, but for the end of the volume) as pieces, in order."""
    plan = Plan(source, missing, chunk, hole_step)
    while (piece := plan.take_piece()) is not None:
        yield piece


def _pieces_of_range(source: Source, start: int, end: int, chunk: int, hole_step: int) -> Iterator[Piece]:
    data: list[tuple[int, int]] = []  # data of the chunk that begins at ``start``
    left: list[tuple[int, int]] = []
    for extent in _gapless_extents(source, start, end):
        here, stop = extent.start, extent.start + extent.length
        while here < stop:
            border = min(start + chunk, end)
            if not extent.data and here == start and stop >= border:
                here = end if stop == end else start + (stop - start) // chunk * chunk
                if hole_step and extent.own:
                    here = min(here, start + hole_step)
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


def _gapless_extents(source: Source, start: int, end: int) -> Iterator[Extent]:
    """The extents of a range. A list with a gap would be a copy with a part missing, and is an error."""
    for extent in source.extents(start, end - start):
        if extent.start != start or extent.length <= 0 or extent.start + extent.length > end:
            break
        yield extent
        start += extent.length
    if start < end:
        why = "the source does not say what is there: its list of extents has a gap"
        raise request_error("read", "the source's allocation", start, end - start, None, why=why)
