"""The copy: lanes take pieces from one plan, read, look for zeros, write; a gate stops them between two pieces.

Rules: no target byte is written while the gate is closed (that is what quiescent means); at most ``interval``
bytes of data are ever written and not yet on record (that is what a crash can cost); a piece that failed is
kept, and nothing goes on until somebody decides.
"""

from __future__ import annotations

import errno
import logging
import mmap
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from blockjobs.model.errors import VolumeError
from blockworker.copy.digests import CHUNK, Digests, digest
from blockworker.copy.extents import RangeSet
from blockworker.copy.plan import Piece, pieces
from blockworker.copy.throttle import Throttle
from blockworker.volumes.base import Source, Target

log = logging.getLogger(__name__)

FLUSH_AFTER: Final = 5.0  # seconds; a slow copy is made durable that often


class Copy:
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
        whole: bool = False,
    ) -> None:
        """``whole``: chunks with any data are written in one request, their holes as zeros."""
        if digests is not None and chunk != CHUNK:
            raise ValueError("a digest stands for one chunk")
        self._source, self._target, self._digests = source, target, digests
        self._chunk, self._interval, self._whole = chunk, interval, whole
        self.size = size
        self.done_before = done.total()  # bytes that earlier attempts made durable
        self.started = False
        self._throttle, self._wake = throttle, wake
        self._finished = RangeSet(done.to_tuple())
        self._plan = pieces(source, list(done.missing(0, size)), chunk)
        self._planning = threading.Lock()
        self._kept: deque[Piece] = deque()  # pieces that failed, or were taken and not begun
        self._state = threading.Condition()
        self._held = self._stopping = self._exhausted = False
        self._inside = 0  # lanes that are in a piece
        self._taken = 0  # bytes of data in pieces that lanes have
        self._copied = 0  # bytes of data finished
        self._flushed = 0  # ... of which this much was in the last snapshot
        self._on_record = 0  # ... and this much is in the registry
        self._snapshot, self._flush_at = done.to_tuple(), time.monotonic()
        self._told_due = False
        self._troubles: list[VolumeError] = []
        self._zeros = bytearray(chunk)
        self.bytes_read = self.bytes_written = self.bytes_zero = self.bytes_skipped = 0
        names = (f"lane-{number}" for number in range(lanes))
        self._lanes = [threading.Thread(target=self._lane, name=name, daemon=True) for name in names]

    # --- orders -----------------------------------------------------------------------------------

    def start(self) -> None:
        self.started = True
        self._throttle.proceed()
        for lane in self._lanes:
            lane.start()
        if self.finished:
            self._wake()

    def hold(self) -> None:
        """Close the gate; returns when no lane is in a piece, and then nothing is written until ``release``."""
        with self._state:
            self._held = True
            self._throttle.interrupt()
            self._state.wait_for(lambda: not self._inside)

    def release(self) -> None:
        """Open the gate again, but for troubles."""
        with self._state:
            self._held = False
            self._reopen()

    def retry(self) -> None:
        """Forget the troubles and try their pieces again."""
        with self._state:
            self._troubles = []
            self._reopen()

    def stop(self) -> None:
        """End the lanes and wait for them.  What they finished is still there to be flushed."""
        with self._state:
            self._stopping = True
            self._throttle.interrupt()
            self._state.notify_all()
        for lane in self._lanes:
            if lane.is_alive():
                lane.join()

    # --- making it durable --------------------------------------------------------------------------

    def flush(self) -> tuple[tuple[int, int], ...]:
        """Make durable what is finished now, while the lanes go on; the ranges that are durable thereby.

        Raises:
            VolumeError: (``operation="flush"``) what was written since the last good flush may be lost.
        """
        with self._state:
            # First the snapshot, then the flush: a piece that ends in between is not in the one, maybe in the other.
            snapshot, copied = self._finished.to_tuple(), self._copied
            self._told_due, self._flush_at, before = False, time.monotonic(), self._flushed
            self._flushed = copied
        try:
            self._target.flush()
            if self._digests is not None:
                self._digests.flush()
        except BaseException:
            with self._state:
                self._flushed = before
            raise
        self._snapshot = snapshot
        return snapshot

    def recorded(self, ranges: tuple[tuple[int, int], ...]) -> None:
        """The registry has ``ranges``, which the last ``flush`` returned."""
        with self._state:
            if ranges == self._snapshot:
                self._on_record = self._flushed
                self._state.notify_all()

    @property
    def flush_due(self) -> bool:
        with self._state:
            return self._due() or (
                self._finished.total() > sum(end - start for start, end in self._snapshot)
                and time.monotonic() - self._flush_at >= FLUSH_AFTER
            )

    # --- what it has come to ------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Every range is done; not necessarily durable."""
        with self._state:
            return self._finished.covers(0, self.size)

    @property
    def troubles(self) -> list[VolumeError]:
        """Why the gate is closed, if it is not held."""
        with self._state:
            return list(self._troubles)

    @property
    def offset(self) -> int:
        """How many bytes are done, holes and what earlier attempts did included."""
        with self._state:
            return self._finished.total()

    # --- the lanes ----------------------------------------------------------------------------------

    def _lane(self) -> None:
        view = memoryview(mmap.mmap(-1, self._chunk))  # page aligned
        while (piece := self._take()) is not None:
            self._work(piece, view)

    def _work(self, piece: Piece, view: memoryview) -> None:
        if not self._enter(piece):
            return
        failed: VolumeError | None = None
        written = 0
        try:
            written = self._copy(piece, view[: min(piece.end - piece.start, self._chunk)])
        except VolumeError as error:
            failed = error.with_traceback(None)  # its frames hold the buffer
        except Exception as error:  # our bug, but it must not leave a job that stands still for ever
            log.exception("copy of %d..%d failed", piece.start, piece.end)
            text = f"internal error: {error!r}"
            length = piece.end - piece.start
            failed = VolumeError(errno.EIO, text, operation="internal", offset=piece.start, length=length)
        if self._leave(piece, failed, written):
            self._wake()

    def _take(self) -> Piece | None:
        """The next piece, when there is room for it; None at the end."""
        with self._state:
            while not self._stopping and not self._ended() and (self._closed() or not self._room()):
                self._state.wait()
            if self._stopping or self._ended():
                return None
            if self._kept:
                return self._retake()
            self._taken += self._chunk  # until it is known what the piece is
        with self._planning:
            piece = next(self._plan, None)
        with self._state:
            self._taken += (piece.bytes if piece is not None else 0) - self._chunk
            self._state.notify_all()
            if piece is None:
                self._exhausted = True
                return self._retake() if self._kept and not self._stopping else None
            return piece

    def _retake(self) -> Piece:
        piece = self._kept.popleft()
        self._taken += piece.bytes
        return piece

    def _enter(self, piece: Piece) -> bool:
        """Pay for the piece and pass the gate.  False: stopped, and the piece is kept."""
        paid = not piece.data
        while True:
            if not paid:
                paid = self._throttle.take(piece.bytes)
            with self._state:
                if self._stopping:
                    self._taken -= piece.bytes
                    self._kept.append(piece)
                    return False
                if self._closed():
                    self._state.wait()
                elif paid:
                    self._inside += 1
                    return True

    def _leave(self, piece: Piece, failed: VolumeError | None, written: int) -> bool:
        """Note how the piece ended, and how much of it is to be made durable; whether somebody should be told."""
        with self._state:
            self._inside -= 1
            self._taken -= piece.bytes
            self._state.notify_all()
            if failed is not None:
                self._kept.append(piece)
                self._troubles.append(failed)
                self._throttle.interrupt()
                return True
            self._finished.add(piece.start, piece.end)
            self._copied += written
            told, self._told_due = self._told_due, self._due()
            return (self._told_due and not told) or self._finished.covers(0, self.size)

    def _read(self, piece: Piece, view: memoryview) -> None:
        """Fill ``view`` with the piece; its holes are zeros."""
        start, filled = piece.start, 0
        for first, last in piece.data:
            if first - start > filled:
                view[filled : first - start] = self._zeros[: first - start - filled]
            filled = last - start
            self._source.pread_into(view[first - start : filled], first)
        if filled < len(view):
            view[filled:] = self._zeros[: len(view) - filled]

    def _copy(self, piece: Piece, view: memoryview) -> int:
        """Copy a piece; how many bytes of data that makes to be flushed and recorded."""
        start, end = piece.start, piece.end
        if not piece.data:
            for first, last in piece.holes:
                self._zero(first, last)
            self._count(skipped=end - start)
            return 0
        self._read(piece, view)
        # A bytearray on the left: bytes == memoryview compares item by item, 75 times slower.
        zeros = self._zeros if len(view) == self._chunk else self._zeros[: len(view)]
        if zeros == view and not piece.left:
            self._zero(start, end)
            self._count(read=piece.bytes, zero=piece.bytes, skipped=end - start - piece.bytes)
            return piece.bytes
        if self._whole and not piece.left:
            self._target.pwrite(view, start)
        else:
            for first, last in piece.holes:
                self._target.zero(first, last - first)
            left = piece.bytes
            for first, last in piece.data:
                self._write(view[first - start : last - start], first, left)
                left -= last - first
        if self._digests is not None:
            self._digests.put(start // CHUNK, digest(view))
        self._count(read=piece.bytes, written=piece.bytes, skipped=end - start - piece.bytes)
        return piece.bytes

    def _write(self, view: memoryview, at: int, left: int) -> None:
        """Write what was paid for, in parts where the limit is low; ``left``: bytes of the piece with these first."""
        here = 0
        while here < len(view):
            part = self._throttle.part
            end = min(len(view), here + part) if part else len(view)
            if part:
                self._throttle.pace(left - end)
            self._target.pwrite(view[here:end], at + here)
            here = end

    def _zero(self, start: int, end: int) -> None:
        self._target.zero(start, end - start)
        if self._digests is not None:
            self._digests.zero(start // CHUNK, -(-end // CHUNK))

    def _count(self, *, read: int = 0, written: int = 0, zero: int = 0, skipped: int = 0) -> None:
        with self._state:
            self.bytes_read += read
            self.bytes_written += written
            self.bytes_zero += zero
            self.bytes_skipped += skipped

    # --- under the lock -----------------------------------------------------------------------------

    def _closed(self) -> bool:
        return self._held or bool(self._troubles)

    def _reopen(self) -> None:
        if not self._closed() and not self._stopping:
            self._throttle.proceed()
            self._state.notify_all()

    def _ended(self) -> bool:
        """Nothing is left to take; a piece that fails is tried again by the lane that has it."""
        return self._exhausted and not self._kept

    def _room(self) -> bool:
        """Whether another chunk keeps the interval; a single one always may."""
        open_bytes = self._copied - self._on_record + self._taken
        return open_bytes == 0 or open_bytes + self._chunk <= self._interval

    def _due(self) -> bool:
        return self._copied - self._flushed >= self._interval / 2
