"""The steady clock: Redis' clock less the jumps, for every decision by time.

Redis' clock is a wall clock and may be set by an administrator.  A coordinator compares Redis' clock with the time
since the boot of its machine and adds up the jumps (``model.clock``); without a jump both clocks are equal.  Times only
for display are Redis' own.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from blockjobs.model.clock import parse_clock
from blockjobs.registry import keys
from blockjobs.registry.connection import Client, redis_milliseconds
from blockjobs.registry.scripts import Scripts

JUMP: Final = 2_000  # ms of difference to a clock without jumps that count as a jump
AWAY: Final = 24 * 3600 * 1000  # ms without a check after which the passed time is uncertain


def read_steady_ms(client: Client) -> int:
    """Milliseconds since the epoch by the steady clock."""
    pipe = client.pipeline(transaction=False)
    pipe.time()
    pipe.get(keys.clock())
    time, record = pipe.execute()
    return parse_clock(record).steady(redis_milliseconds(time))


def read_jumps(client: Client) -> int:
    """Milliseconds by which Redis' clock is ahead of the steady clock, to convert stored times to shown times."""
    return parse_clock(client.get(keys.clock())).jumps


class Look(NamedTuple):
    """The result of comparing Redis' clock with the time since a machine's boot.

    ``verdict``: "steady"; "jumped": ahead by ``ms`` more than at the last check in that boot; "away": the first check
    in that boot, and no check at all for ``ms``, which may include a jump.  ``at_boot``: the boot on the steady clock,
    in milliseconds since the epoch.
    """

    verdict: str
    at_boot: int
    ms: int


class Clock:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def now(self) -> int:
        """Milliseconds since the epoch by the steady clock."""
        return read_steady_ms(self._redis)

    def compare(self, boot: str, since_boot: int) -> Look:
        """Compare Redis' clock with a clock without jumps: id of a machine's boot, and milliseconds since that boot."""
        names = [keys.clock_anchors(), keys.events()]
        verdict, now, ms = self._scripts.call("clock", names, [boot, since_boot, JUMP, AWAY])
        return Look(verdict.decode(), int(now) - since_boot, int(ms))
