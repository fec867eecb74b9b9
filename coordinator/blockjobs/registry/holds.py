"""Holds of many jobs at once: pause-all, and drains of hosts and volumes.

A reason is in force while its record exists.  Every hold and every lifting is a script that checks the record first, so
any process can finish the work of a process that died half-way.  The jobs held by a reason are recorded only in the
holds of the jobs: a lifting ends exactly these holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from blockjobs.model.ids import Host, JobId, TxnId
from blockjobs.model.numbers import milliseconds_of
from blockjobs.registry import codec, keys
from blockjobs.registry.clock import read_jumps, read_steady_ms
from blockjobs.registry.connection import Client, redis_milliseconds
from blockjobs.registry.each import readable_name
from blockjobs.registry.odd import Odd
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.submit import split_batches
from blockjobs.registry.views import JobPlace

ALL: Final = "all:"
DRAIN: Final = "drain:"


@dataclass(frozen=True, slots=True)
class Holding:
    """A reason that holds many jobs.  Times in milliseconds of Redis' clock; ``expires`` 0: never."""

    reason: str
    since: int
    cause: str
    owner: str
    expires: int
    lifting: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "reason": self.reason, "since": self.since / 1000, "cause": self.cause, "owner": self.owner,
            "expires": self.expires / 1000 if self.expires else None, "lifting": self.lifting,
        }  # fmt: skip


class Holds:
    def __init__(self, client: Client, scripts: Scripts, odd: Odd | None = None) -> None:
        self._redis, self._scripts, self._odd = client, scripts, odd or Odd()

    def begin(self, reason: str, *, cause: str = "", owner: str = "", seconds: float = 0.0) -> bool:
        """Put a reason in force; False: the reason is in force already.  ``seconds``: the time to expiry (0: none)."""
        ms = milliseconds_of(seconds, f"hold for '{reason}'")
        self.finish_lifting(reason)
        record = codec.pack_value([self._now(), cause, owner, read_steady_ms(self._redis) + ms if ms else 0])
        return bool(self._redis.hsetnx(keys.holding(), reason, record))

    def hold(self, reason: str, cause: str = "", places: Iterable[JobPlace] | None = None) -> int:
        """Hold these jobs (None: every live job) for a reason in force; return the number of new holds."""
        held = 0
        for batch in split_batches(list(self.live() if places is None else places)):
            args = [reason, cause, *(place.job for place in batch)]
            match self._scripts.call("hold", self._keys(keys.holding(), batch), args):
                case [b"held", n]:
                    held += n
                case _:
                    break
        return held

    def lift(self, reason: str) -> int | None:
        """End a reason and lift the hold from every held job.

        Returns the number of jobs, None for a reason not in force.
        """
        record = self._redis.hget(keys.holding(), reason)
        if record is None and not self._redis.hexists(keys.lifting(), reason):
            return None
        if record is not None:
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(keys.lifting(), reason, record)
            pipe.hdel(keys.holding(), reason)
            pipe.execute()
        return self.finish_lifting(reason)

    def finish_lifting(self, reason: str) -> int:
        """Continue an interrupted lifting."""
        if not self._redis.hexists(keys.lifting(), reason):
            return 0
        lifted = 0
        while more := self._lift_once(reason):  # repeated: a job may have moved to another host meanwhile
            lifted += more
        self._redis.hdel(keys.lifting(), reason)
        return lifted

    def _lift_once(self, reason: str) -> int:
        lifted = 0
        for batch in split_batches(list(self.live())):
            args = [reason, *(place.job for place in batch)]
            reply = self._scripts.call("lift", self._keys(keys.lifting(), batch), args)
            lifted += reply[1] if reply[0] == b"lifted" else 0
        return lifted

    def reap(self, now: int) -> list[str]:
        """Lift the holds expired by the steady clock (milliseconds), and finish interrupted liftings.

        Returns the ended reasons.
        """
        over = [each.reason for each in self._records(0) if each.lifting or 0 < each.expires <= now]
        for reason in over:
            self.lift(reason)
        return over

    def records(self) -> list[Holding]:
        """Every reason in force or being lifted, oldest first."""
        return self._records(read_jumps(self._redis))

    def _records(self, jumps: int) -> list[Holding]:
        """Every reason, oldest first; with ``jumps`` 0 the ends are by the steady clock."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(keys.holding())
        pipe.hgetall(keys.lifting())
        holding, lifting = pipe.execute()
        rows = (
            (readable_name(reason), record, reason not in holding) for reason, record in (lifting | holding).items()
        )
        read = (self._odd.read(f"hold '{row[0]}'", partial(_parse_holding, *row, jumps)) for row in rows)
        return sorted((each for each in read if each is not None), key=lambda each: (each.since, each.reason))

    def live(self) -> Iterator[JobPlace]:
        """Every job of every unfinished transaction; concluded jobs may be included."""
        for txn in self._redis.zrange(keys.unfinished(), 0, -1):
            name = TxnId(txn.decode())
            for row in self._redis.lrange(keys.order(name), 0, -1):
                host, job = row.decode().split(" ")
                yield JobPlace(Host(host), JobId(job), name)

    def drained_by(self, what: str) -> list[JobPlace]:
        """The live jobs in a drain: the jobs of a host, or the jobs using a volume (by its lock)."""
        if ":" not in what:
            return [place for place in self.live() if place.host == what]
        found: list[JobPlace] = []
        for batch in split_batches(list(self.live())):
            pipe = self._redis.pipeline(transaction=False)
            for at in batch:
                pipe.hmget(keys.job(at.host, at.job), "source", "target")
            found += [at for at, locks in zip(batch, pipe.execute(), strict=True) if what.encode() in locks]
        return found

    def _keys(self, record: str, batch: Sequence[JobPlace]) -> list[str]:
        names = [record, keys.events()]
        for at in batch:
            names += [
                keys.job(at.host, at.job),
                keys.holds(at.host, at.job),
                keys.wake(at.host, at.job),
                keys.txn(at.transaction),
                keys.ready(at.host),
                keys.rung(at.host),
            ]
        return names

    def _now(self) -> int:
        return redis_milliseconds(self._redis.time())


def _parse_holding(reason: str, record: bytes, lifting: bool, jumps: int) -> Holding:
    since, cause, owner, expires = codec.unpack_value(record)
    return Holding(reason, int(since), cause, owner, int(expires) and int(expires) + jumps, lifting=lifting)
