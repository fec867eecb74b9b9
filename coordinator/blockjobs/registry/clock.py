"""The steady clock: Redis' clock less what it has jumped, by which all that is due or over by time is judged.

Redis' clock is a wall clock, which somebody may set.  A coordinator compares it with the time since the boot of its own
machine and adds up the jumps (``model.clock``); where none was seen both clocks are the same.  Times that are only
shown are Redis' own.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from blockjobs.model.clock import parse
from blockjobs.registry import keys
from blockjobs.registry.connection import Client, milliseconds
from blockjobs.registry.scripts import Scripts

JUMP: Final = 2_000  # ms by which a clock differs from one that does not jump, from which it has jumped
AWAY: Final = 24 * 3600 * 1000  # ms without any look, from which the time that passed is uncertain


def read_steady_ms(client: Client) -> int:
    """Milliseconds since the epoch by the steady clock."""
    pipe = client.pipeline(transaction=False)
    pipe.time()
    pipe.get(keys.clock())
    time, record = pipe.execute()
    return parse(record).steady(milliseconds(time))


def read_jumps(client: Client) -> int:
    """Milliseconds that Redis' clock is ahead of the steady one: what is kept by the one is told by the other."""
    return parse(client.get(keys.clock())).jumps


class Look(NamedTuple):
    """What came of comparing Redis' clock with that of a machine's boot.

    ``verdict``: "steady"; "jumped": it was put ``ms`` ahead since somebody of that boot looked; "away": nobody of that
    boot looked before, and nobody at all for ``ms``, which may have been a jump.  ``at_boot``: where the boot lies on
    the steady clock, in milliseconds since the epoch.
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
        """Compare Redis' clock with one that does not jump: that of a machine since its boot (its id; milliseconds)."""
        names = [keys.clock_anchors(), keys.events()]
        verdict, now, ms = self._scripts.call("clock", names, [boot, since_boot, JUMP, AWAY])
        return Look(verdict.decode(), int(now) - since_boot, int(ms))
