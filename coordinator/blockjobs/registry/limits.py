"""Stores and hosts as limits: copies at once, and bytes a second; changed while copies run.

A place in a store is taken by the doorbell and held by the claim: a copy counts while its doorbell or claim exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from blockjobs.model import errors
from blockjobs.model.budgets import Has
from blockjobs.model.ids import Host, JobId
from blockjobs.model.numbers import whole_number
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.odd import Odd, decode_or_raise
from blockjobs.registry.scripts import Scripts

BATCH: Final = 100  # upper bound of jobs touched by one script


@dataclass(frozen=True, slots=True)
class StoreView:
    """A store.  ``jobs`` and ``speed`` (bytes/s) are limits over all hosts, 0: no limit; ``flow``: current bytes/s."""

    name: str
    path: str
    jobs: int
    speed: int
    since: int
    by: str
    flow: int
    running: int  # copies running or rung for
    waiting: int  # jobs waiting for a place in the store

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "path": self.path, "jobs": self.jobs, "speed": self.speed, "since": self.since / 1000,
            "by": self.by, "flow": self.flow, "running": self.running, "waiting": self.waiting,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Running:
    """A copy with a claim, or with a place in a store without a claim.  ``read``: bytes, as reported at ``told`` (ms).

    ``limit``: the limit handed out last in bytes/s, 0: none; ``felt``: the limit confirmed by the copy.
    """

    host: Host
    job: JobId
    store: str
    claimed: bool
    paused: bool
    attempt: str
    speed: int
    limit: int
    felt: int
    read: int
    told: int

    @property
    def has(self) -> Has:
        return Has(self.limit, self.felt)


class Limits:
    def __init__(self, client: Client, scripts: Scripts, odd: Odd | None = None) -> None:
        self._redis, self._scripts, self._odd = client, scripts, odd or Odd()

    # --- stores and limits -------------------------------------------------------------------------------

    def stores(self) -> list[StoreView]:
        """The stores, by name."""
        names = sorted(readable_name(name) for name in self._redis.smembers(keys.stores()))
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(keys.store(name))
            pipe.zcard(keys.places(name))
            pipe.zcard(keys.crowd(name))
        rows = pipe.execute() if names else []
        found = [
            self._odd.read(f"store {name}", partial(_store_view, name, record, running, waiting))
            for name, record, running, waiting in zip(names, rows[::3], rows[1::3], rows[2::3], strict=True)
        ]
        return [store for store in found if store is not None]

    def store(self, name: str) -> StoreView:
        """A store by its name.  Raises NoSuchStore."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(keys.store(name))
        pipe.zcard(keys.places(name))
        pipe.zcard(keys.crowd(name))
        record, running, waiting = pipe.execute()
        if b"path" not in record:  # a flow may have been noted after it was removed
            raise errors.NoSuchStore(name)
        return decode_or_raise(f"store {name}", lambda: _store_view(name, record, running, waiting))

    def set_store(
        self, name: str, *, jobs: int | None = None, speed: int | None = None, by: str = "", path: str = ""
    ) -> tuple[int, int] | None:
        """Change the limits of a store (None: unchanged); with ``path`` the store may be new.

        Returns the limits before, None for a new store.

        Raises:
            NoSuchStore: the store is unknown and ``path`` is empty.
        """
        given = (("jobs", jobs), ("speed", speed))
        said = ["" if each is None else whole_number(each, f"store '{name}': {what}") for what, each in given]
        match self._scripts.call("store", [keys.stores(), keys.store(name), keys.events()], [name, *said, by, path]):
            case [b"set", b"", b""]:
                return None
            case [b"set", before, flow]:
                return self._was(before), self._was(flow)
            case _:
                raise errors.NoSuchStore(name)

    def remove_store(self, name: str, *, by: str = "") -> None:
        """Forget a store.

        Raises:
            NoSuchStore: the store is unknown.
            StoreBusy: an unfinished job uses the store.
        """
        if not self._redis.hexists(keys.store(name), "path"):
            raise errors.NoSuchStore(name)
        self._expect_unused(name)
        names = [keys.stores(), keys.store(name), keys.places(name), keys.crowd(name), keys.events()]
        match self._scripts.call("store_gone", names, [name, by]):
            case [b"gone", path, jobs, speed, said_by]:
                try:  # a job submitted meanwhile uses the store: define the store again
                    self._expect_unused(name)
                except errors.StoreBusy:
                    was = {"path": path.decode(), "by": said_by.decode()}
                    self.set_store(name, jobs=self._was(jobs), speed=self._was(speed), **was)
                    raise
            case _:
                raise errors.NoSuchStore(name)

    def _expect_unused(self, name: str) -> None:
        """Raise StoreBusy if an unfinished job uses the store."""
        users = []
        for batch in _split_batches(list(self._redis.hgetall(keys.ids()).items())):
            pipe = self._redis.pipeline(transaction=False)
            for job, place in batch:
                host = Host(place.decode().split(" ")[0])
                pipe.hmget(keys.job(host, JobId(job.decode())), "store", "status")
            users += [
                job.decode()
                for (job, _), (store, status) in zip(batch, pipe.execute(), strict=True)
                if store == name.encode() and status != b"concluded"
            ]
        if users:
            raise errors.StoreBusy(name, users)

    def set_host(self, host: str, speed: int, *, by: str = "") -> int:
        """Limit the copies of a host together (0: no limit); return the limit before.

        Raises HostDown for an unknown host.
        """
        whole_number(speed, f"host '{host}': speed")
        reply = self._scripts.call("host", [keys.hosts(), keys.events()], [host, speed, by])
        if reply[0] != b"set":
            raise errors.HostDown(host, "is not known: no worker has registered under this name")
        return self._was(reply[1])

    def host_speeds(self) -> dict[Host, int]:
        """The current limit of each host that ever had a limit."""
        record = self._redis.hgetall(keys.hosts())
        names = {name: readable_name(name)[6:] for name in record if name.startswith(b"speed:")}
        found = {
            host: self._odd.read(f"limit of host {host}", partial(int, record[name])) for name, host in names.items()
        }
        return {Host(host): speed for host, speed in found.items() if speed is not None}

    @staticmethod
    def _was(number: bytes) -> int:
        """The limit before a change; an unreadable limit is about to be replaced, and counts as no limit."""
        return int(number) if number.isdigit() else 0

    # --- running copies ----------------------------------------------------------------------------------

    def running(self, stores: Iterable[str], hosts: Iterable[Host]) -> list[Running]:
        """Every copy with a place in a store of ``stores``, or with a claim on a host of ``hosts``."""
        by_store, by_host = list(stores), list(hosts)
        pipe = self._redis.pipeline(transaction=False)
        for name in by_store:
            pipe.zrange(keys.places(name), 0, -1)
        for host in by_host:
            pipe.hkeys(keys.attempts(host))
        rows = pipe.execute() if by_store or by_host else []
        places = {
            (host, JobId(j.decode())): ""
            for host, jobs in zip(by_host, rows[len(by_store) :], strict=True)
            for j in jobs
        }
        for name, members in zip(by_store, rows, strict=False):
            places |= dict.fromkeys(map(_parse_host_and_job, members), name)
        for host, job in places:
            pipe.hmget(keys.job(host, job), "attempt", "status", "speed", "limit", "felt", "bytes", "told")
        found = [
            self._odd.read(f"what job {job} moves", partial(_running_copy, host, job, store, fields))
            for ((host, job), store), fields in zip(places.items(), pipe.execute() if places else [], strict=True)
        ]
        return [copy for copy in found if copy is not None]

    def limit(self, limits: Mapping[tuple[Host, JobId], int]) -> None:
        """Hand running copies their shares, in bytes a second."""
        for batch in _split_batches(list(limits.items())):
            names = [key for (host, job), _ in batch for key in (keys.job(host, job), keys.wake(host, job))]
            self._scripts.call("limit", names, [limit for _, limit in batch])

    def flow(self, flows: Mapping[str, int]) -> None:
        """Record the current flow into each store, for readers."""
        pipe = self._redis.pipeline(transaction=False)
        for name, flow in flows.items():
            pipe.hset(keys.store(name), "flow", flow)
        if flows:
            pipe.execute()

    # --- places -------------------------------------------------------------------------------------------

    def sweep(self, store: str, suspects: Iterable[tuple[Host, JobId]]) -> int:
        """Give back the places of ended copies; return their number."""
        freed = 0
        for batch in _split_batches(list(suspects)):
            names = [keys.places(store)]
            names += [key for host, job in batch for key in (keys.job(host, job), keys.rung(host))]
            freed += self._scripts.call("sweep", names, [word for place in batch for word in place])[1]
        return freed

    def vacate(self, host: Host, job: JobId, attempt: str, store: str, *, away: bool) -> None:
        """Give back the place of an attempt standing still because its host is away; else take the place again."""
        self._scripts.call("vacate", [keys.job(host, job), keys.places(store)], [host, job, attempt, int(away)])

    def admit(self, store: str, most: int) -> set[Host]:
        """Let ``most`` jobs out of a store's crowd, the longest wait first; return the hosts to ring."""
        hosts: set[Host] = set()
        while most > 0 and (found := self._redis.zrange(keys.crowd(store), 0, min(most, BATCH) - 1)):
            places = [_parse_host_and_job(member) for member in found]
            names = [keys.crowd(store), *(keys.ready(host) for host, _ in places)]
            self._scripts.call("admit", names, [word for place in places for word in place])
            hosts |= {host for host, _ in places}
            most -= len(places)
        return hosts

    def ahead(self, store: str, host: Host, job: JobId) -> int | None:
        """The number of jobs that get a place in a store earlier; None: the job does not wait for a place."""
        rank = self._redis.zrank(keys.crowd(store), f"{host} {job}")
        return None if rank is None else int(rank)


def _running_copy(host: Host, job: JobId, store: str, fields: Sequence[bytes | None]) -> Running:
    attempt, status, speed, limit, felt, counts, told = fields
    return Running(
        host,
        job,
        store,
        bool(attempt),
        status in (b"paused", b"standby"),
        (attempt or b"").decode(),
        int(speed or 0),
        int(limit or 0),
        int((attempt and felt) or limit or 0),
        int(codec.unpack_value(counts).get("read", 0)) if counts else 0,
        int(told or 0),
    )


def _parse_host_and_job(member: bytes) -> tuple[Host, JobId]:
    host, _, job = member.decode().partition(" ")
    return Host(host), JobId(job)


def _store_view(name: str, r: Mapping[bytes, bytes], running: int, waiting: int) -> StoreView:
    def number(field: bytes) -> int:
        return int(r.get(field, b"0"))

    return StoreView(
        name,
        r.get(b"path", b"").decode(),
        number(b"jobs"),
        number(b"speed"),
        number(b"since"),
        r.get(b"by", b"").decode(),
        number(b"flow"),
        running,
        waiting,
    )


def _split_batches(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
