"""The finished, durable and recorded bytes of a copy, and the limit of a crash's cost. The owner has the lock."""

from __future__ import annotations

import time
from typing import Final

from blockworker.volumes.extents import RangeSet

FLUSH_AFTER: Final = 5.0  # seconds; a slow copy is made durable at this interval

Ranges = tuple[tuple[int, int], ...]


class Interval:
    """The account of one copy. At most ``limit`` bytes are ever written and not yet on record, but for one chunk."""

    def __init__(self, done: RangeSet, limit: int, chunk: int) -> None:
        self.limit, self._chunk = limit, chunk
        self.finished = RangeSet(done.to_tuple())
        self._taken = 0  # bytes of data in pieces that lanes have
        self._copied = 0  # bytes of data finished
        self._flushed = 0  # ... of them in the last snapshot
        self._on_record = 0  # ... of them in the registry
        self._snapshot, self._snapshot_bytes = done.to_tuple(), done.total()
        self._flushed_at = time.monotonic()

    @property
    def has_room(self) -> bool:
        """Whether the limit has room for another chunk; a single chunk is always allowed."""
        open_bytes = self._copied - self._on_record + self._taken
        return open_bytes == 0 or open_bytes + self._chunk <= self.limit

    @property
    def half_full(self) -> bool:
        """Whether the bytes not flushed are at least half the limit, and a flush is due."""
        return self._copied - self._flushed >= self.limit / 2

    @property
    def flush_due(self) -> bool:
        return self.half_full or (
            self.finished.total() > self._snapshot_bytes and time.monotonic() - self._flushed_at >= FLUSH_AFTER
        )

    def reserve(self, n: int) -> None:
        """Reserve ``n`` bytes of data for a lane's piece; a negative number gives bytes back."""
        self._taken += n

    def finish(self, start: int, end: int, written: int) -> None:
        """Note a finished piece; ``written``: bytes to be made durable."""
        self.finished.add(start, end)
        self._copied += written

    def begin_flush(self) -> tuple[Ranges, int]:
        """Begin a flush; return the ranges that it makes durable, and the argument for ``failed_flush``."""
        before, self._flushed, self._flushed_at = self._flushed, self._copied, time.monotonic()
        return self.finished.to_tuple(), before

    def failed_flush(self, before: int) -> None:
        self._flushed = before

    def keep_snapshot(self, ranges: Ranges) -> None:
        """Note a successful flush; these ranges go to the registry."""
        self._snapshot, self._snapshot_bytes = ranges, sum(end - start for start, end in ranges)

    def recorded(self, ranges: Ranges) -> None:
        """Note that the registry has these ranges; ranges older than the last snapshot change nothing."""
        if ranges == self._snapshot:
            self._on_record = self._flushed
