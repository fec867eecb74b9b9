"""Room taken up by the last committed backup of each job, by host: the estimate for the next backup.

``answer.lua`` writes the size as a backup settles.  A series without a backup for 90 days is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from blockjobs.model.ids import Host, JobId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.room import backup_series
from blockjobs.registry import keys
from blockjobs.registry.connection import Client

KEPT: Final = 90 * 86_400_000  # milliseconds


def last_sizes(client: Client, host: Host, specs: Iterable[JobSpec]) -> dict[JobId, int]:
    """Bytes taken up by the last committed backup of each job's series; jobs without a backup are left out."""
    named = [(spec.id, name) for spec in specs if (name := backup_series(spec))]
    if not named:
        return {}
    found = client.hmget(keys.sizes(host), [name for _, name in named])
    return {job: int(size.split()[0]) for (job, _), size in zip(named, found, strict=True) if size}


def forget_sizes(client: Client, host: Host, now_ms: int) -> int:
    """Forget the series without a backup for 90 days; return their number."""
    found = client.hgetall(keys.sizes(host))
    old = [name for name, size in found.items() if int(size.split()[1]) < now_ms - KEPT]
    return int(client.hdel(keys.sizes(host), *old)) if old else 0
