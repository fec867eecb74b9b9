"""A delta pass: read the source again, write what differs from what the target is known to hold.

Where that is not known (an attempt before this one wrote it) the target is read too.  A pass that finds nothing dirty
shows a point in time: every chunk was read twice with equal content, once before and once behind the instant at which
the pass began, so the target is what the source was then (but for what changed and changed back in between).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blockworker.copy.digests import CHUNK, ZERO, digest
from blockworker.copy.engine import Copy
from blockworker.copy.extents import RangeSet
from blockworker.copy.ledger import Ledger
from blockworker.copy.plan import Piece
from blockworker.copy.throttle import Throttle
from blockworker.volumes.base import Source, Target

SMALLEST: Final = 4096  # bytes; what is compared in one piece when a dirty chunk is written only where it differs


class Pass(Copy):
    """One pass over the whole source.  ``dirty``: bytes that differed; ``copied``: those of them that are written."""

    def __init__(
        self, source: Source, target: Target, *, size: int, ledger: Ledger, throttle: Throttle,
        wake: Callable[[], None], granularity: int, lanes: int, learning: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            source, target, size=size, done=RangeSet(), throttle=throttle, wake=wake, digests=ledger, lanes=lanes
        )
        self._ledger = ledger
        self._granularity = max(granularity, SMALLEST)
        self._learning = learning  # note what is there, write nothing
        self._pending: dict[int, int] = {}  # start of a dirty piece -> bytes of it that are not written yet
        self.copied = 0

    @property
    def dirty(self) -> int:
        with self._state:
            return self.copied + sum(self._pending.values())

    def flush(self) -> tuple[tuple[int, int], ...]:
        """What was copied before stays durable: a pass only makes it newer."""
        super().flush()
        self._snapshot = ((0, self.size),) if self.size else ()
        return self._snapshot

    def _copy(self, piece: Piece, view: memoryview) -> int:
        if not piece.data:
            return 0 if piece.left else self._hole(piece)
        self._read(piece, view)
        index, length = piece.start // CHUNK, len(view)
        zero = self._zeros == view if length == CHUNK else self._zeros[:length] == view
        value = ZERO if zero else digest(view)
        if self._learning:
            self._ledger.put(index, value)
        elif not self._ledger.has(index, value):
            return self._renew(piece, index, view, value)
        self._count(read=piece.bytes, zero=length if zero else 0)
        return 0

    def _renew(self, piece: Piece, index: int, view: memoryview, value: bytes) -> int:
        """The chunk differs, or it is not known whether it does; the bytes written."""
        start, length = piece.start, len(view)
        if piece.left:  # of a layer below: what is not ours must not become zeros
            self._expect(start, piece.bytes)
            self._ledger.forget(index, index + 1)
            super()._copy(piece, view)
            self._done(start)
            return piece.bytes
        ranges = [(0, length)]
        if not self._ledger.known(index) or self._granularity < CHUNK:
            old = bytearray(length)
            self._target.pread_into(memoryview(old), start)
            ranges = _differing(old, view, self._granularity)
        written = sum(end - begin for begin, end in ranges)
        self._expect(start, written)
        self._ledger.forget(index, index + 1)
        if value == ZERO and ranges:
            self._target.zero(start, length)
        else:
            for begin, end in ranges:
                self._target.pwrite(view[begin:end], start + begin)
        self._ledger.put(index, value)
        self._count(read=piece.bytes, written=written)
        self._done(start)
        return written

    def _hole(self, piece: Piece) -> int:
        first, last = piece.start // CHUNK, -(-piece.end // CHUNK)
        if self._learning:
            self._ledger.zero(first, last)
            return 0
        runs = self._ledger.not_zero(first, last)
        written = sum(min(end * CHUNK, self.size) - begin * CHUNK for begin, end in runs)
        self._expect(piece.start, written)
        for begin, end in runs:
            self._ledger.forget(begin, end)
            self._target.zero(begin * CHUNK, min(end * CHUNK, self.size) - begin * CHUNK)
            self._ledger.zero(begin, end)
        self._count(skipped=piece.end - piece.start, zero=written)
        self._done(piece.start)
        return written

    def _expect(self, start: int, length: int) -> None:
        with self._state:
            if length:
                self._pending[start] = length

    def _done(self, start: int) -> None:
        with self._state:
            self.copied += self._pending.pop(start, 0)


def _differing(old: bytearray, new: memoryview, granularity: int) -> list[tuple[int, int]]:
    """Where two chunks of one length differ, in blocks, neighbours merged."""
    if old == new:
        return []
    ranges: list[tuple[int, int]] = []
    for start in range(0, len(old), granularity):
        end = min(start + granularity, len(old))
        if old[start:end] == new[start:end]:
            continue
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((start, end))
    return ranges
