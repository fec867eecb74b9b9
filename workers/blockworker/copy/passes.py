"""A delta pass: read the source again, and write the bytes that differ from the known content of the target.

If the content is not known (an earlier attempt wrote it), the target is read too. A pass that finds nothing dirty shows
a point in time: every chunk was read twice with equal content, once before and once after the instant at which the pass
began. The target is then equal to the source at that instant (but for bytes that changed and changed back in between).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blockworker.copy.digests import CHUNK, ZERO, chunk_digest
from blockworker.copy.engine import Copy
from blockworker.copy.lanes import Turn
from blockworker.copy.ledger import Ledger
from blockworker.copy.plan import Piece
from blockworker.copy.throttle import Throttle
from blockworker.copy.zeros import append_range, split_zeros
from blockworker.volumes.base import Source, Target
from blockworker.volumes.extents import RangeSet

SMALLEST: Final = 4096  # bytes; the unit of comparison when a dirty chunk is written only in part


class Pass(Copy):
    """One pass over the whole source. ``dirty``: differing bytes; ``copied``: differing bytes already written."""

    def __init__(
        self,
        source: Source,
        target: Target,
        *,
        size: int,
        ledger: Ledger,
        throttle: Throttle,
        wake: Callable[[], None],
        granularity: int,
        lanes: int,
        learning: bool = False,
        hole_step: int = 0,
    ) -> None:
        super().__init__(
            source,
            target,
            size=size,
            done=RangeSet(),
            throttle=throttle,
            wake=wake,
            digests=ledger,
            lanes=lanes,
            hole_step=hole_step,
        )
        self._ledger = ledger
        self._granularity = max(granularity, SMALLEST)
        self._learning = learning  # note the content, write nothing
        self._pending: dict[int, int] = {}  # start of a dirty piece -> its bytes not written yet
        self.copied = 0

    @property
    def dirty(self) -> int:
        with self._state:
            return self.copied + sum(self._pending.values())

    def durable_of(self, flushed: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:  # noqa: ARG002
        """The whole volume: earlier copies stay durable, and a pass only makes them newer."""
        return ((0, self.size),) if self.size else ()

    def _copy(self, turn: Turn, piece: Piece, view: memoryview) -> None:
        if not piece.data:
            if not piece.left:
                self._hole(turn, piece)
            return
        self._read(turn, piece, view)
        index, length = piece.start // CHUNK, len(view)
        zero = not split_zeros(view, [(0, length)])[0]
        value = ZERO if zero else chunk_digest(view)
        if self._learning:
            self._ledger.put(index, value)
        elif not self._ledger.has(index, value):
            self._renew(turn, piece, index, view, value)
            return
        self._count(read=piece.bytes, zero=length if zero else 0)

    def _renew(self, turn: Turn, piece: Piece, index: int, view: memoryview, value: bytes) -> None:
        """Write the differing bytes of a chunk that differs, or may differ."""
        start, length = piece.start, len(view)
        if piece.left:  # bytes in layers below must not become zeros
            self._expect(start, piece.bytes)
            self._ledger.forget(index, index + 1)
            super()._copy(turn, piece, view)
            self._done(start)
            return
        ranges = [(0, length)]
        if not self._ledger.known(index) or self._granularity < CHUNK:
            old = bytearray(length)
            self._target.pread_into(memoryview(old), start)
            ranges = _differing_ranges(old, view, self._granularity)
        written = sum(end - begin for begin, end in ranges)
        self._expect(start, written)
        self._ledger.forget(index, index + 1)
        data, zeros = split_zeros(view, ranges)
        for begin, end in zeros:
            self._zero(turn, start + begin, start + end, paid=True)
        for begin, end in data:
            self._target.pwrite(view[begin:end], start + begin)
        self._ledger.put(index, value)
        self._count(read=piece.bytes, written=written)
        turn.written += written
        self._done(start)

    def _hole(self, turn: Turn, piece: Piece) -> None:
        first, last = piece.start // CHUNK, -(-piece.end // CHUNK)
        if self._learning:
            self._ledger.zero(first, last)
            return
        runs = self._ledger.not_zero(first, last)
        written = sum(min(end * CHUNK, self.size) - begin * CHUNK for begin, end in runs)
        self._expect(piece.start, written)
        for begin, end in runs:
            self._ledger.forget(begin, end)
            self._zero(turn, begin * CHUNK, min(end * CHUNK, self.size))
            self._ledger.zero(begin, end)
            self._obey(turn)
        self._count(skipped=piece.end - piece.start, zero=written)
        turn.written += written
        self._done(piece.start)

    def _expect(self, start: int, length: int) -> None:
        with self._state:
            if length:
                self._pending[start] = length

    def _done(self, start: int) -> None:
        with self._state:
            self.copied += self._pending.pop(start, 0)


def _differing_ranges(old: bytearray, new: memoryview, granularity: int) -> list[tuple[int, int]]:
    """The differing blocks of two chunks of equal length, neighbours merged."""
    if old == new:
        return []
    ranges: list[tuple[int, int]] = []
    for start in range(0, len(old), granularity):
        end = min(start + granularity, len(old))
        if old[start:end] == new[start:end]:
            continue
        append_range(ranges, start, end)
    return ranges
