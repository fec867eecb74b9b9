"""Small reads for frequent use or for many jobs: no record is unpacked, and only requested fields are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from blockjobs.model.ids import JobId, RunId, TxnId, is_internal
from blockjobs.model.states import Status
from blockjobs.registry import keys
from blockjobs.registry.connection import Client
from blockjobs.registry.odd import Odd
from blockjobs.registry.submit import split_batches
from blockjobs.registry.views import JobPlace, readable_place

HINT: Final = 1000  # fields read by Redis in one step of a search
BACK: Final = 5000  # events read by a backward search before giving up


@dataclass(frozen=True, slots=True)
class Glance:
    """The status of a job, and the facts that change without an event."""

    status: Status
    claimed: bool
    busy: bool
    offset: int
    len: int
    speed: int


class Glances:
    def __init__(self, client: Client, odd: Odd | None = None) -> None:
        self._redis, self._odd = client, odd or Odd()

    def progress(self, places: Iterable[JobPlace]) -> dict[JobId, Glance]:
        """The progress of some jobs; unknown and unpublished jobs are left out."""
        found: dict[JobId, Glance] = {}
        for page in split_batches(list(places)):
            pipe = self._redis.pipeline(transaction=False)
            for place in page:
                pipe.hmget(keys.job(place.host, place.job), "status", "attempt", "busy", "offset", "len", "speed")
            for place, fields in zip(page, pipe.execute(), strict=True):
                if fields[0] and fields[0] != b"undefined":
                    glance = self._odd.read(f"progress of job {place.job}", partial(_parse_glance, *fields))
                    found |= {} if glance is None else {place.job: glance}
        return found

    def jobs_like(self, pattern: str) -> list[JobPlace]:
        """The places of the jobs with an id matching a glob (``*``, ``?``, ``[...]``), by id."""
        found = dict(self._redis.hscan_iter(keys.ids(), match=pattern, count=HINT))
        places = [readable_place(self._odd, job, found[job]) for job in sorted(found)]
        return [place for place in places if place is not None and not is_internal(place.job)]

    def runs_like(self, pattern: str) -> list[RunId]:
        """The runs with an id matching a glob, oldest first."""
        found = {run.decode(): at for run, at in self._redis.zscan_iter(keys.runs(), match=pattern, count=HINT)}
        return [RunId(run) for run in sorted(found, key=lambda run: (found[run], run)) if not is_internal(run)]

    def unfinished_runs(self) -> list[RunId]:
        """The runs with members to conclude, oldest first."""
        txns = [TxnId(txn.decode()) for txn in self._redis.zrange(keys.unfinished(), 0, -1)]
        return list(dict.fromkeys(self.runs_of(txn for txn in txns if not is_internal(txn)).values()))

    def ends(self, runs: Iterable[RunId]) -> dict[RunId, bool | None]:
        """Whether each run is over, without reading the rest of the record; None: the run does not exist."""
        found: dict[RunId, bool | None] = {}
        for page in split_batches(list(runs)):
            pipe = self._redis.pipeline(transaction=False)
            for run in page:
                pipe.hmget(keys.run(run), "state", "ended")
            for run, (state, ended) in zip(page, pipe.execute(), strict=True):
                found[run] = (ended or b"0") != b"0" if state == b"published" else None
        return found

    def runs_of(self, txns: Iterable[TxnId]) -> dict[TxnId, RunId]:
        """The run of each known transaction."""
        found: dict[TxnId, RunId] = {}
        for page in split_batches(list(txns)):
            pipe = self._redis.pipeline(transaction=False)
            for txn in page:
                pipe.hget(keys.txn(txn), "run")
            found |= {txn: RunId(run.decode()) for txn, run in zip(page, pipe.execute(), strict=True) if run}
        return found

    def ahead(self, place: JobPlace) -> int | None:
        """The number of jobs of the host that get a slot earlier; None: the job does not wait for a slot."""
        rank = self._redis.zrank(keys.ready(place.host), place.job)
        return None if rank is None else int(rank)

    def held_since(self, job: JobId) -> dict[str, float]:
        """The start of each hold, in seconds since the epoch, as far as recent events tell."""
        since: dict[str, float] = {}
        lifted: set[str] = set()
        for seq, fields in self._newest_first():
            if fields.get(b"id") == job.encode() and (reason := fields.get(b"reason", b"").decode()):
                if fields.get(b"event") == b"JOB_HELD" and reason not in lifted:
                    since.setdefault(reason, int(seq.partition(b"-")[0]) / 1000)
                elif fields.get(b"event") == b"JOB_UNHELD":
                    lifted.add(reason)
        return since

    def _newest_first(self) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        end = "+"
        for _ in range(BACK // 500):
            page = self._redis.xrevrange(keys.events(), max=end, count=500)
            yield from page
            if len(page) < 500:
                return
            end = f"({page[-1][0].decode()}"


def _parse_glance(status: bytes, attempt: bytes | None, busy: bytes | None, *numbers: bytes | None) -> Glance:
    offset, length, speed = (int(number or 0) for number in numbers)
    return Glance(Status(status.decode()), bool(attempt), busy == b"1", offset, length, speed)
