"""What is known of Redis' clock: how far it has jumped, and what the steady clock showed at the last look.  Pure.

Redis' clock is a wall clock, which somebody may put.  Whoever asks for the time between such a jump and the next look
of a coordinator is told a time that is wrong by ``UNWATCHED`` at most: the steady clock never goes back behind the last
look, nor far beyond it while nobody looks.  Without that, what is noted with such a time would be due in a year, or at
once.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

UNWATCHED: Final = 10_000  # ms that the steady clock goes on by itself; a coordinator looks every second
_RECORD: Final = re.compile(rb"(-?\d+)(?: (\d+))?")


class ClockRecord(NamedTuple):
    """``jumps``: milliseconds that the clock is ahead of the steady one; ``last``: the steady clock at the last look,
    in milliseconds since the epoch, None: nobody has looked yet."""

    jumps: int = 0
    last: int | None = None

    def steady(self, now: int) -> int:
        """The steady clock while Redis' clock shows ``now``; both in milliseconds since the epoch."""
        time = now - self.jumps
        return time if self.last is None else min(max(time, self.last), self.last + UNWATCHED)


def parse(record: bytes | None) -> ClockRecord:
    """The record as the registry has it: ``jumps last``; of one that cannot be read, that of a new registry."""
    if (found := _RECORD.fullmatch(record or b"")) is None:
        return ClockRecord()
    jumps, last = found.groups()
    return ClockRecord(int(jumps), None if last is None else int(last))
