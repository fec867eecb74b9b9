"""How much room the last committed backup of each job takes up, by host: what the next one is going to need.

``answer.lua`` writes it as a backup settles.  A series without a backup for 90 days is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from blockjobs.model.ids import Host, JobId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.room import series
from blockjobs.registry import keys
from blockjobs.registry.connection import Client

KEPT: Final = 90 * 86_400_000  # milliseconds


def last_sizes(client: Client, host: Host, specs: Iterable[JobSpec]) -> dict[JobId, int]:
    """Bytes that the last committed backup of each job's series takes up; a job without one is not in it."""
    named = [(spec.id, name) for spec in specs if (name := series(spec))]
    if not named:
        return {}
    found = client.hmget(keys.sizes(host), [name for _, name in named])
    return {job: int(size.split()[0]) for (job, _), size in zip(named, found, strict=True) if size}


def forget_sizes(client: Client, host: Host, now_ms: int) -> int:
    """Forget the series that had no backup for 90 days; how many."""
    found = client.hgetall(keys.sizes(host))
    old = [name for name, size in found.items() if int(size.split()[1]) < now_ms - KEPT]
    return int(client.hdel(keys.sizes(host), *old)) if old else 0
