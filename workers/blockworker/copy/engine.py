"""The copy: a piece is read, searched for zeros, and written; meanwhile finished pieces are made durable.

At most ``interval`` bytes of data are ever written and not yet on record: a crash can cost that much.
"""

from __future__ import annotations

from collections.abc import Callable

from blockjobs.model.errors import VolumeError
from blockjobs.model.jobs import WHOLE, Salvaged
from blockworker.copy.digests import CHUNK, Digests, chunk_digest
from blockworker.copy.interval import Interval
from blockworker.copy.lanes import CopyLanes, Turn
from blockworker.copy.plan import Piece, Plan
from blockworker.copy.salvage import is_of_sector, read_around
from blockworker.copy.throttle import Throttle
from blockworker.copy.zeros import Ranges, split_zeros, whole_blocks
from blockworker.volumes.base import Source, Target
from blockworker.volumes.extents import RangeSet


class Copy(CopyLanes):
    """One attempt's copy of a volume.  All methods but ``flush`` and ``stop`` return within a piece's time."""

    def __init__(
        self,
        source: Source,
        target: Target,
        *,
        size: int,
        done: RangeSet,
        throttle: Throttle,
        wake: Callable[[], None],
        digests: Digests | None = None,
        chunk: int = CHUNK,
        lanes: int = 2,
        interval: int = 128 << 20,
        whole: int = 0,
        hole_step: int = 0,
        salvage: bool = False,
        salvaged: Salvaged = WHOLE,
    ) -> None:
        """``whole``: blocks of this size in bytes are written whole if they hold any data; 0: no such blocks.

        ``hole_step``: the most bytes of a hole in one piece, 0: any number. ``salvage``: unreadable bytes become zeros;
        ``salvaged``: the bytes zeroed by earlier attempts.
        """
        if digests is not None and chunk != CHUNK:
            raise ValueError("a digest stands for one chunk")
        self._source, self._target, self._digests = source, target, digests
        super().__init__(
            Plan(source, list(done.missing(0, size)), chunk, hole_step),
            Interval(done, interval, chunk),
            size=size,
            chunk=chunk,
            lanes=lanes,
            throttle=throttle,
            wake=wake,
        )
        self._whole, self._salvage = whole, salvage
        self.done_before = done.total()  # bytes made durable by earlier attempts
        self._salvaged_before, self._salvaged = salvaged, RangeSet(salvaged.ranges)
        self.salvaged_durable = salvaged
        self.tries = 0  # reads around bad sectors: a sign of life
        self.bytes_read = self.bytes_written = self.bytes_zero = self.bytes_skipped = 0

    # --- making it durable --------------------------------------------------------------------------

    def flush(self) -> tuple[tuple[int, int], ...]:
        """Make finished pieces durable, while the lanes go on; return the ranges that are durable now.

        ``salvaged_durable`` is then the unreadable part of these ranges.

        Raises:
            VolumeError: (``operation="flush"``) writes since the last good flush may be lost.
        """
        with self._state:
            # First the snapshot, then the flush: a piece that ends in between is not in the snapshot, but maybe on
            # disk.
            (snapshot, before), salvaged = self._account.begin_flush(), self._salvaged.to_tuple()
            self._told_due = False
        try:
            self._target.flush()
            if self._digests is not None:
                self._digests.flush()
        except BaseException:
            with self._state:
                self._account.failed_flush(before)
            raise
        snapshot = self.durable_of(snapshot)
        with self._state:
            self._account.keep_snapshot(snapshot)
            self.salvaged_durable = self._salvaged_before.having(salvaged)
        return snapshot

    def durable_of(self, flushed: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """The part of the flushed ranges that is to be recorded as done."""
        return flushed

    def recorded(self, ranges: tuple[tuple[int, int], ...]) -> None:
        """Note that the registry has ``ranges``, as returned by the last ``flush``."""
        with self._state:
            self._account.recorded(ranges)
            self._state.notify_all()

    @property
    def flush_due(self) -> bool:
        with self._state:
            return self._account.flush_due

    # --- one piece ----------------------------------------------------------------------------------

    def _read(self, turn: Turn, piece: Piece, view: memoryview) -> None:
        """Fill ``view`` with the piece; holes become zeros."""
        start, filled, lost = piece.start, 0, list[tuple[int, int]]()
        for first, last in piece.data:
            if first - start > filled:
                view[filled : first - start] = bytes(first - start - filled)
            filled = last - start
            part = view[first - start : filled]
            try:
                self._source.pread_into(part, first)
            except VolumeError as error:
                if not self._salvage or not is_of_sector(error):
                    raise
                lost += read_around(self._source.pread_into, part, first, lambda: self._try_again(turn))
        if filled < len(view):
            view[filled:] = bytes(len(view) - filled)
        turn.lost = tuple(lost)

    def _try_again(self, turn: Turn) -> None:
        self._obey(turn)
        with self._state:
            self.tries += 1

    def _copy(self, turn: Turn, piece: Piece, view: memoryview) -> None:
        """Copy a piece; note in the turn the bytes to be flushed and recorded."""
        start, end = piece.start, piece.end
        if not piece.data:
            for first, last in piece.holes:
                self._zero(turn, first, last)
                self._note_zeros(first, last)
            self._count(skipped=end - start)
            return
        self._read(turn, piece, view)
        data, zeros = split_zeros(view, [(first - start, last - start) for first, last in piece.data])
        blank = sum(last - first for first, last in zeros)
        holes = [(first - start, last - start) for first, last in piece.holes]
        if self._whole and not piece.left and data:
            data, zeros, holes = _in_whole_blocks(data, len(view), self._whole)
        for first, last in holes:
            self._zero(turn, start + first, start + last)
        for first, last in zeros:
            self._zero(turn, start + first, start + last, paid=True)
        written = left = sum(last - first for first, last in data)
        for first, last in data:
            self._write(view[first:last], start + first, left)
            left -= last - first
        if not data and not piece.left:
            self._note_zeros(start, end)
        elif self._digests is not None:
            self._digests.put(start // CHUNK, chunk_digest(view))
        turn.written += piece.bytes
        self._count(read=piece.bytes, written=written, zero=blank, skipped=end - start - piece.bytes)

    def _write(self, view: memoryview, at: int, left: int) -> None:
        """Write paid bytes, in parts if the limit is low; ``left``: bytes of the piece from ``view`` on."""
        here = 0
        while here < len(view):
            part = self._throttle.part
            end = min(len(view), here + part) if part else len(view)
            if part:
                self._throttle.pace(left - end)
            self._target.pwrite(view[here:end], at + here)
            here = end

    def _zero(self, turn: Turn, start: int, end: int, *, paid: bool = False) -> None:
        """Make a range zeros; if the target needs data for zeros, they are written, and paid for like data."""
        for first, last in self._target.zero(start, end - start) or ():
            self._obey(turn)
            here = first
            zeros = memoryview(bytes(min(self._chunk, last - here)))
            while here < last:
                n = min(self._throttle.part or self._chunk, self._chunk, last - here)
                self._enter(turn, 0 if paid else n)
                self._target.pwrite(zeros[:n], here)
                turn.written += 0 if paid else n
                self._count(written=n)
                here += n

    def _note_zeros(self, start: int, end: int) -> None:
        if self._digests is not None:
            self._digests.zero(start // CHUNK, -(-end // CHUNK))

    def _count(self, *, read: int = 0, written: int = 0, zero: int = 0, skipped: int = 0) -> None:
        with self._state:
            self.bytes_read += read
            self.bytes_written += written
            self.bytes_zero += zero
            self.bytes_skipped += skipped


def _in_whole_blocks(data: Ranges, size: int, block: int) -> tuple[Ranges, Ranges, Ranges]:
    """The blocks that hold data, no zeros, and the rest as holes."""
    blocks, holes, here = whole_blocks(data, size, block), [], 0
    for start, end in [*blocks, (size, size)]:
        if start > here:
            holes.append((here, start))
        here = end
    return blocks, [], holes
