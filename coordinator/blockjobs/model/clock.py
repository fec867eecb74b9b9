"""Record of Redis' clock: the jumps of the clock so far, and the steady clock at the last check.  Pure.

Redis' clock is a wall clock and may be set by an administrator.  Between a jump and the coordinator's next check, the
steady clock is wrong by at most ``UNWATCHED``: the steady clock never goes back behind the last check, nor far beyond
the last check without a new check.  Without this bound, a time noted before the next check could be due in a year, or
at once.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

UNWATCHED: Final = 10_000  # ms that the steady clock advances without a check; a coordinator checks every second
_RECORD: Final = re.compile(rb"(-?\d+)(?: (\d+))?")


class ClockRecord(NamedTuple):
    """``jumps``: milliseconds by which the clock is ahead of the steady clock.

    ``last``: the steady clock at the last check, in milliseconds since the epoch; None before the first check.
    """

    jumps: int = 0
    last: int | None = None

    def steady(self, now: int) -> int:
        """The steady clock while Redis' clock shows ``now``; both in milliseconds since the epoch."""
        time = now - self.jumps
        return time if self.last is None else min(max(time, self.last), self.last + UNWATCHED)


def parse_clock(record: bytes | None) -> ClockRecord:
    """The record from its stored form ``jumps last``; an unreadable record counts as the record of a new registry."""
    if (found := _RECORD.fullmatch(record or b"")) is None:
        return ClockRecord()
    jumps, last = found.groups()
    return ClockRecord(int(jumps), None if last is None else int(last))
