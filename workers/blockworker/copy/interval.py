"""What of a copy is done, durable and on record, and how many bytes a crash may cost.  Guarded by whoever owns it."""

from __future__ import annotations

import time
from typing import Final

from blockworker.volumes.extents import RangeSet

FLUSH_AFTER: Final = 5.0  # seconds; a slow copy is made durable that often

Ranges = tuple[tuple[int, int], ...]


class Interval:
    """The account of one copy.  At most ``limit`` bytes are ever written and not yet on record, but for one chunk."""

    def __init__(self, done: RangeSet, limit: int, chunk: int) -> None:
        self.limit, self._chunk = limit, chunk
        self.finished = RangeSet(done.to_tuple())
        self._taken = 0  # bytes of data in pieces that lanes have
        self._copied = 0  # bytes of data finished
        self._flushed = 0  # ... of which this much was in the last snapshot
        self._on_record = 0  # ... and this much is in the registry
        self._snapshot, self._snapshot_bytes = done.to_tuple(), done.total()
        self._flushed_at = time.monotonic()

    @property
    def has_room(self) -> bool:
        """Whether another chunk keeps the limit; a single one always may."""
        open_bytes = self._copied - self._on_record + self._taken
        return open_bytes == 0 or open_bytes + self._chunk <= self.limit

    @property
    def half_full(self) -> bool:
        """Whether so much is not flushed that it is time for it."""
        return self._copied - self._flushed >= self.limit / 2

    @property
    def flush_due(self) -> bool:
        return self.half_full or (
            self.finished.total() > self._snapshot_bytes and time.monotonic() - self._flushed_at >= FLUSH_AFTER
        )

    def reserve(self, n: int) -> None:
        """A lane takes a piece with so many bytes of data; negative: it gives them back."""
        self._taken += n

    def finish(self, start: int, end: int, written: int) -> None:
        """A piece is done, for which so many bytes have to be made durable."""
        self.finished.add(start, end)
        self._copied += written

    def begin_flush(self) -> tuple[Ranges, int]:
        """The ranges that a flush which begins now makes durable, and what ``failed_flush`` is to be told."""
        before, self._flushed, self._flushed_at = self._flushed, self._copied, time.monotonic()
        return self.finished.to_tuple(), before

    def failed_flush(self, before: int) -> None:
        self._flushed = before

    def keep_snapshot(self, ranges: Ranges) -> None:
        """A flush came through; the registry is to be told these ranges."""
        self._snapshot, self._snapshot_bytes = ranges, sum(end - start for start, end in ranges)

    def recorded(self, ranges: Ranges) -> None:
        """The registry has these ranges; what is older than the last snapshot changes nothing."""
        if ranges == self._snapshot:
            self._on_record = self._flushed
