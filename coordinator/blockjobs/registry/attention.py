"""Views of conditions that may need a person, and marks of sent notices: a few small reads per unfinished job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from blockjobs.model.attention import (
    HOLDABLE,
    JobSeen,
    LineSeen,
    Need,
    NoticeSeen,
    RunSeen,
    Thresholds,
    TransactionSeen,
    fresh_needs,
    in_short,
    needs_of,
)
from blockjobs.model.barriers import FORWARD, Step
from blockjobs.model.hanging import hanging_of
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.liveness import lone_absence
from blockjobs.model.notices import ATTENTION
from blockjobs.model.states import Status
from blockjobs.registry import codec, keys
from blockjobs.registry.clock import read_jumps, read_steady_ms
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.facts import read_facts
from blockjobs.registry.hosts import FULL, Hosts
from blockjobs.registry.notices import OF_NAMES, Notices
from blockjobs.registry.odd import Odd
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.views import PAGE, JobPlace, Views

KEPT: Final = 7 * 24 * 3600 * 1000  # ms until notices without a run are deleted
OVER: Final = (Status.CONCLUDED, Status.NULL, Status.UNDEFINED)
_JOB: Final = ("status", "attempt", "full", "stopped-at", "stopped-by", "held-at", "unsettled")


@dataclass(frozen=True, slots=True)
class HostLine:
    """The line of a host at the last check: the start of the standstill (ms, steady clock), and the count of claims."""

    since: int
    claims: int


class Attention:
    def __init__(
        self, client: Client, scripts: Scripts, *, views: Views, hosts: Hosts, notices: Notices, odd: Odd | None = None
    ) -> None:
        self._redis, self._scripts, self._odd = client, scripts, odd or Odd()
        self._views, self._hosts, self._notices = views, hosts, notices

    # --- thresholds -------------------------------------------------------------------------------------------

    def thresholds(self) -> Thresholds:
        """The thresholds published by the coordinator, or the defaults."""
        packed = self._redis.hget(keys.daemons(), "attention")
        return Thresholds(**codec.unpack_value(packed)) if packed else Thresholds()

    def publish_thresholds(self, limits: Thresholds) -> None:
        """Publish the coordinator's thresholds for commands."""
        self._redis.hset(keys.daemons(), "attention", codec.pack_value(limits.to_dict()))

    # --- runs to watch ----------------------------------------------------------------------------------------

    def watched(self) -> list[RunId]:
        """The runs with recipients in their files, until the last notice of the run's end is done."""
        return sorted(RunId(run.decode()) for run in self._redis.smembers(keys.watched()))

    def unwatch(self, run: RunId) -> None:
        """Stop watching a run."""
        self._redis.srem(keys.watched(), run)

    def is_over(self, run: RunId) -> bool:
        """Whether a run has ended or is forgotten, and every notice of the end was sent or given up."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hmget(keys.run(run), "state", "ended")
        pipe.zscore(keys.untold(), run)
        (state, ended), untold = pipe.execute()
        if state is not None and (ended is None or untold is not None):
            return False
        return all(notice.state != "waiting" for notice in self._notices.of(run))

    def tell(self, run: RunId, needs: Sequence[Need], said: Mapping[str, Any], urls: Sequence[str]) -> int:
        """Create notices of new needs to these URLs, with one message; return the number of notices.

        The result is 0 if any of the needs was announced before.
        """
        marks = [word for need in needs for word in (need.name, need.mark)]
        names = [keys.notices(), keys.run_notices(run), keys.run_notices(run)]
        args = [run, codec.pack_value(dict(said)), in_short(needs), 0, len(needs), *marks, *urls]
        return int(self._scripts.call("attend", names, args)[1])

    def tell_of_name(self, need: Need, unique: str, said: Mapping[str, Any], urls: Sequence[str]) -> int:
        """Create notices of a need without a run; ``unique`` names the temporary record of the notices."""
        name = RunId(f"{OF_NAMES}{unique}")
        names = [keys.notices(), keys.run_notices(name), keys.names()]
        args = [name, codec.pack_value(dict(said)), in_short([need]), KEPT, 1, need.name, need.mark, *urls]
        return int(self._scripts.call("attend", names, args)[1])

    def fresh(self, run: RunId, needs: Sequence[Need]) -> list[Need]:
        """The needs without a notice so far."""
        if not needs:
            return []
        found = self._redis.hmget(keys.run_notices(run), [f"told:{need.name}" for need in needs])
        told = {need.name: readable_name(mark) for need, mark in zip(needs, found, strict=True) if mark is not None}
        return fresh_needs(needs, told)

    def to_json(self, needs: Sequence[Need]) -> list[dict[str, Any]]:
        """Needs with times by Redis' clock, as in any other output."""
        jumps = read_jumps(self._redis) if needs else 0
        return [need.to_json(jumps) for need in needs]

    # --- view of a run ----------------------------------------------------------------------------------------

    def needs(self, run: RunId, limits: Thresholds) -> list[Need]:
        """The needs of one run."""
        return needs_of(self.look(run), limits)

    def look(self, run: RunId) -> RunSeen:
        """The current view of a run."""
        now = read_steady_ms(self._redis)
        ended, queued = self._redis.hmget(keys.run(run), "ended", "queued")
        notices = self._given_up(run)
        if ended is not None:
            return RunSeen(id=run, now=now, notices=notices)
        places = self._views.places(run)
        records = self._records(places)
        jobs = self._jobs(records)
        waiting = dict.fromkeys(at.host for at, record in records if _is_waiting_for_slot(record))
        txns = () if queued else self._transactions(dict.fromkeys(at.transaction for at, _ in records))
        held = any(job.holds for job in jobs)
        return RunSeen(
            id=run,
            now=now,
            jobs=jobs,
            transactions=txns,
            lines=self._lines(list(waiting)),
            notices=notices,
            many=self._many() if held else {},
        )

    def _given_up(self, run: RunId) -> list[NoticeSeen]:
        return [
            NoticeSeen(number=each.number, outcome=each.outcome, url=each.url, tries=each.tries, error=each.error)
            for each in self._notices.of(run)
            if each.state == "failed" and each.outcome != ATTENTION
        ]

    def _records(self, places: Sequence[JobPlace]) -> list[tuple[JobPlace, Mapping[str, str]]]:
        """The records of unfinished jobs."""
        found: list[tuple[JobPlace, Mapping[str, str]]] = []
        for start in range(0, len(places), PAGE):
            page = places[start : start + PAGE]
            pipe = self._redis.pipeline(transaction=False)
            for at in page:
                pipe.hmget(keys.job(at.host, at.job), _JOB)
            for at, row in zip(page, pipe.execute(), strict=True):
                record = {name: readable_name(value or b"") for name, value in zip(_JOB, row, strict=True)}
                if record["status"] and record["status"] not in OVER:
                    found.append((at, record))
        return found

    def _jobs(self, records: Sequence[tuple[JobPlace, Mapping[str, str]]]) -> list[JobSeen]:
        """The jobs with a possible need; holds of other jobs are not read."""
        chosen = [(at, r) for at, r in records if r["stopped-at"] or r["held-at"] or r["unsettled"]]
        pipe = self._redis.pipeline(transaction=False)
        for at, _ in chosen:
            pipe.hgetall(keys.holds(at.host, at.job))
        rows = pipe.execute() if chosen else []
        read = (
            self._odd.read(f"job {at.job}", partial(_job_seen, at, r, holds))
            for (at, r), holds in zip(chosen, rows, strict=True)
        )
        return [job for job in read if job is not None]

    def _transactions(self, txns: Iterable[TxnId]) -> list[TransactionSeen]:
        names = list(txns)
        found: list[TransactionSeen] = []
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            pipe = self._redis.pipeline(transaction=False)
            for txn in page:
                pipe.hgetall(keys.txn(txn))
            records = [(txn, record) for txn, record in zip(page, pipe.execute(), strict=True) if record]
            shares = [
                (txn, Host(readable_name(name)[5:])) for txn, record in records for name in record
                if name.startswith(b"host:") and b"begins" not in record
            ]  # fmt: skip
            pipe = self._redis.pipeline(transaction=False)
            for txn, host in shares:
                pipe.hgetall(keys.tally(host, txn))
            owed: dict[TxnId, dict[Host, Mapping[bytes, bytes]]] = {}
            for (txn, host), share in zip(shares, pipe.execute() if shares else [], strict=True):
                owed.setdefault(txn, {})[host] = share
            for txn, record in records:
                seen = self._odd.read(f"transaction {txn}", partial(_transaction_seen, txn, record, owed.get(txn, {})))
                found += [] if seen is None else [seen]
        return found

    def _many(self) -> dict[str, int]:
        rows = [(readable_name(reason), record) for reason, record in self._redis.hgetall(keys.holding()).items()]
        read = [(reason, self._odd.read(f"hold '{reason}'", partial(_hold_start, record))) for reason, record in rows]
        return {reason: since for reason, since in read if since is not None}

    # --- lines of hosts -----------------------------------------------------------------------------------

    def _lines(self, hosts: Sequence[Host]) -> list[LineSeen]:
        """The lines of hosts at the coordinator's last check."""
        if not hosts:
            return []
        standing = self._standing(hosts)
        known = self._hosts.known()
        pipe = self._redis.pipeline(transaction=False)
        for host in hosts:
            pipe.zcount(keys.ready(host), "-inf", f"({FULL}")
            pipe.hlen(keys.attempts(host))
            pipe.hmget(keys.card(host), "slots", "facts")
        rows = pipe.execute()
        found = []
        for host, waiting, running, (slots, facts) in zip(hosts, rows[::3], rows[1::3], rows[2::3], strict=True):
            many = int(readable_name(slots or b"0")) if (slots or b"0").isdigit() else 0
            judged = known.get(host)
            why = "" if judged is None or judged.state == "up" else f"the host is {judged.state}"
            if why and judged is not None and (missing := lone_absence(judged.absent)):
                why = f"{why}: {missing}"
            hanging = hanging_of(read_facts(host, facts)[0])
            why = why or (f"{hanging[0].path} hangs there" if hanging else "")
            since = standing[host].since if host in standing else 0
            found.append(
                LineSeen(host=host, waiting=waiting, free=max(0, many - running), slots=many, since=since, why=why)
            )
        return found

    def watch_lines(self) -> None:
        """Record for each host since when the line stands: jobs wait, slots are free, and no job has begun."""
        hosts = list(self._hosts.known())
        waiting = set(self._hosts.waiting(hosts))
        before = self._standing(hosts)
        if not waiting and not before:
            return
        now = read_steady_ms(self._redis)
        pipe = self._redis.pipeline(transaction=False)
        for host in hosts:
            pipe.hlen(keys.attempts(host))
            pipe.hmget(keys.card(host), "slots", "claims")
        rows = pipe.execute()
        pipe = self._redis.pipeline(transaction=False)
        for host, running, (slots, claims) in zip(hosts, rows[::2], rows[1::2], strict=True):
            free = int(slots or 0) > running if (slots or b"0").isdigit() else False
            count = int(claims or 0)
            if host not in waiting or not free:
                if host in before:
                    pipe.hdel(keys.hosts(), f"standing:{host}")
            elif host not in before or before[host].claims != count:
                pipe.hset(keys.hosts(), f"standing:{host}", f"{now} {count}")
        pipe.execute()

    def _standing(self, hosts: Sequence[Host]) -> dict[Host, HostLine]:
        rows = self._redis.hmget(keys.hosts(), [f"standing:{host}" for host in hosts]) if hosts else []
        found = {}
        for host, row in zip(hosts, rows, strict=True):
            if row and len(parts := readable_name(row).split(" ")) == 2 and all(map(str.isdigit, parts)):
                found[host] = HostLine(*map(int, parts))
        return found


def _is_waiting_for_slot(record: Mapping[str, str]) -> bool:
    """Whether a job waits for a slot, and for nothing else."""
    return record["status"] in (Status.RUNNING, Status.READY) and not record["attempt"] and not record["full"]


def _hold_start(record: bytes) -> int:
    """The start of a hold of many jobs."""
    return int(codec.unpack_value(record)[0])


def _job_seen(at: JobPlace, r: Mapping[str, str], holds: Mapping[bytes, bytes]) -> JobSeen:
    status = Status(r["status"])
    why = {readable_name(reason): readable_name(cause) for reason, cause in holds.items() if reason != b"created"}
    stopped = int(r["stopped-at"] or 0) if "user" in why and status in HOLDABLE else 0
    return JobSeen(
        id=JobId(at.job),
        host=at.host,
        transaction=at.transaction,
        status=status,
        stopped=stopped,
        stopped_by=r["stopped-by"],
        held=int(r["held-at"] or 0) if why else 0,
        holds=why,
        unsettled=r["unsettled"],
    )


def _transaction_seen(
    txn: TxnId, record: Mapping[bytes, bytes], shares: Mapping[Host, Mapping[bytes, bytes]]
) -> TransactionSeen:
    decision = readable_name(record.get(b"decision", b""))
    steps = (Step.SETTLE, Step.CONCLUDE) if decision else FORWARD
    owed = {
        host: {readable_name(name): int(n) for name, n in share.items() if name in _STEPS}
        for host, share in shares.items()
    }
    step = next((step for step in steps if any(each.get(step, 0) > 0 for each in owed.values())), None)
    stands = step is not None and record.get(b"barrier") == step.encode()  # otherwise the step has just begun
    since = int(record.get(b"stands-since", 0)) if stands else 0
    return TransactionSeen(
        id=txn,
        decision=decision,
        step=step,
        since=since,
        owing={host: each[step] for host, each in owed.items() if step and each.get(step, 0) > 0},
    )


_STEPS: Final = frozenset(str(step).encode() for step in Step)
