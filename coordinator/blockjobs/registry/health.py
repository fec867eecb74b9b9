"""The state of Redis: facts judged by ``doctor``.  Nothing is changed but one key, which expires within a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

from blockjobs.registry import keys
from blockjobs.registry.connection import Client, redis_milliseconds

ROUNDS: Final = 15
A_HOST, A_SLOT, OTHERS = 22, 5, 50  # upper bounds of connections, as counted in docs/scale.md


class Health:
    def __init__(self, client: Client) -> None:
        self._redis = client

    def server(self, *, hosts: int, slots: int) -> dict[str, Any]:
        """The server itself; ``hosts`` and ``slots``: of the whole fleet."""
        info = self._redis.info()
        return {
            "aof-status": info.get("aof_last_write_status", "ok"),
            "memory": int(info["used_memory"]), "maxmemory": int(info.get("maxmemory", 0)),
            "machine-memory": int(info.get("total_system_memory", 0)),
            "clients": int(info["connected_clients"]), "maxclients": int(info.get("maxclients", 10000)),
            "hosts": hosts, "slots": slots, "needed-clients": A_HOST * hosts + A_SLOT * slots + OTHERS,
        }  # fmt: skip

    def script_takes(self) -> float:
        """Milliseconds taken by a script without work."""
        return self._takes(lambda: self._redis.eval("return redis.call('TIME')", 0))

    def write_takes(self) -> float:
        """Milliseconds until a change is durable."""
        return self._takes(lambda: self._redis.set(keys.trial(), 1, px=1000))

    def _takes(self, call: Callable[[], object]) -> float:
        """Milliseconds, the median of some."""
        took = []
        for _ in range(ROUNDS):
            began = time.monotonic()
            call()
            took.append(1000 * (time.monotonic() - began))
        return median(took)

    def clock_difference(self) -> float:
        """Seconds by which Redis' clock is ahead of this machine's; a difference within the round trip counts as 0."""
        before = time.time()
        theirs = self.now()
        return distance_outside_range(theirs, before, time.time())

    def now(self) -> float:
        """Redis' clock in seconds."""
        return redis_milliseconds(self._redis.time()) / 1000

    def incarnation(self) -> str:
        return (self._redis.get(keys.incarnation()) or b"").decode()


def distance_outside_range(value: float, low: float, high: float) -> float:
    """Seconds by which ``value`` lies outside of ``low`` to ``high``; a millisecond is allowed for Redis' rounding."""
    return value - high if value > high else min(0.0, value + 0.001 - low)
