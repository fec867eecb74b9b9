"""Views for readers: a job, a run, a transaction, a host.  Reading never changes the registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final

from blockjobs.model.clock import parse_clock
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import NoSuchJob, NoSuchRun
from blockjobs.model.ids import Host, JobId, RunId, TxnId, is_internal
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import (
    ALONE,
    Count,
    RunFields,
    RunOutcome,
    Verdict,
    outcome_of,
    run_verdict,
    transaction_name,
)
from blockjobs.model.states import Status
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client, redis_milliseconds
from blockjobs.registry.each import readable_name
from blockjobs.registry.odd import STRICT, Odd, decode_or_raise

PAGE: Final = 500  # records read in one round trip


@dataclass(frozen=True, slots=True)
class JobView:
    """One job at the time of the read.  Times in milliseconds of Redis' clock, 0 before the event; sizes in bytes."""

    id: JobId
    host: Host
    transaction: TxnId
    run: RunId
    status: Status
    type: str
    spec: JobSpec
    offset: int
    len: int
    speed: int
    busy: bool
    holds: dict[str, str]
    io_status: str
    ret: int
    error: str
    cancelled: bool
    claimed: bool
    attempts: int
    lost: int
    passed: str
    unsettled: str
    created: int
    started: int
    ended: int
    now: int
    bytes: dict[str, int] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # deviations from the request, with no effect on the job
    undefined: str = ""  # why the content of the target, a device, is unknown
    resolved: str = ""  # the user's resolution for a committed image that could not be published
    published_as: str = ""  # HOST:/PATH of the image then
    cut: Cut | None = None  # None: no answer yet
    limit: int = 0  # the share from budgets of stores and hosts, in bytes a second; 0: no limit
    full: bool = False  # the store was full when the host was last to be rung for the job
    tries: int = 1  # the number of the current try
    failed_with: str = ""  # the error of the try before
    died: str = ""  # the cause of death of the last dead attempt, and the place of its log
    hangs: tuple[int, str] | None = None  # a call of the attempt that does not return: since when, and the path
    diverging: tuple[int, int] = (0, 0)  # of a mirror that does not converge: bytes a second changed, and copied

    @property
    def paused(self) -> bool:
        """Whether the job is asked to pause, for any reason except "created"; quiescent is ``paused and not busy``."""
        return any(reason != "created" for reason in self.holds)

    @property
    def crowded(self) -> bool:
        """Whether the job waits for a place in its store."""
        return self.full and not self.claimed and not self.holds and self.status in (Status.RUNNING, Status.READY)

    @property
    def slowed(self) -> bool:
        """Whether the job may move less than its user allows."""
        return self.claimed and bool(self.limit) and (not self.speed or self.limit < self.speed)

    @property
    def elapsed(self) -> float:
        """Seconds from the first claim to the end, or to now."""
        return ((self.ended or self.now) - self.started) / 1000 if self.started else 0.0

    def to_json(self) -> dict[str, Any]:
        """QEMU's BlockJobInfo, with further fields."""
        return {
            "type": self.type, "device": self.id, "len": self.len, "offset": self.offset, "busy": self.busy,
            "paused": self.paused, "speed": self.speed, "io-status": self.io_status,
            "ready": self.status in (Status.READY, Status.STANDBY), "status": str(self.status),
            "auto-finalize": self.spec.auto_finalize, "auto-dismiss": self.spec.auto_dismiss,
            "error": self.error or None, "died": self.died or None,
            "id": self.id, "run": self.run, "transaction": self.transaction, "host": self.host,
            "source": self.spec.source.text, "target": self.spec.target.text,
            "warnings": list(self.warnings),
            "target-undefined": self.undefined or None,
            "resolved": {"how": self.resolved, "published-as": self.published_as} if self.resolved else None,
            "cut": self.cut.told() if self.cut is not None else None,
            "store": self.spec.store or None, "limit": self.limit, "store-full": self.crowded,
            "attempt": self.attempts, "try": self.tries, "failed-with": self.failed_with or None, "holds": self.holds,
            "elapsed": round(self.elapsed, 3),
            "hangs": {"path": self.hangs[1], "since": self.hangs[0] / 1000} if self.hangs and self.claimed else None,
            "diverging": dict(zip(("dirty-rate", "copy-rate"), self.diverging, strict=True))
            if any(self.diverging) else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunView:
    """One run: the number of jobs, of unconcluded jobs, and of failed or cancelled jobs."""

    id: RunId
    name: str
    grouped: bool
    published: int
    ended: int
    jobs: int
    open: int
    failed: int
    cancelled: int
    skipped: int = 0  # left out at the start
    bad: Mapping[str, int] = field(default_factory=dict)  # by transaction of the file: failed or cancelled
    fields: RunFields = field(default_factory=RunFields)
    began: int = 0  # the first claim
    sums: Mapping[str, int] = field(default_factory=dict)  # over the concluded jobs: bytes by kind, len, attempts
    why: str = ""  # the error of the first failed job
    pruned: int = 0  # targets pruned, or replaced by targets of later runs
    pruned_at: int = 0
    layered: bool = False  # targets of the run have layers below
    retries: str = ""  # the earlier run, for a rerun
    retried: int = 0  # retries of the jobs, in total
    queued: str = ""  # the active run of the same name, while waiting for its end
    salvaged: int = 0  # committed jobs with unreadable parts in the source
    salvaged_of: Mapping[str, int] = field(default_factory=dict)  # by transaction of the file
    replaced: str = ""  # the later run that took the place in line
    found: bool = False  # a rescan made the record from manifests

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the end of the run; 0 before the end."""
        return (self.ended - self.published) / 1000 if self.ended else 0.0

    @property
    def rate(self) -> float:
        """Bytes read a second, from the first claim to the end."""
        seconds = (self.ended - self.began) / 1000 if self.ended and self.began else 0.0
        return self.sums.get("read", 0) / seconds if seconds > 0 else 0.0

    @property
    def outcome(self) -> RunOutcome:
        """The outcome of a finished run."""
        if self.replaced or self.found:
            return RunOutcome.SKIPPED if self.replaced else RunOutcome.FOUND
        return outcome_of(self.jobs, self.failed, self.cancelled)

    @property
    def mode(self) -> str:
        """``grouped``, ``individual``, or ``mixed`` if the transactions differ."""
        modes = {policy.grouped for policy in self.fields.policies.values()} or {self.grouped}
        return "mixed" if len(modes) > 1 else "grouped" if True in modes else "individual"

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "name": self.name, "completion-mode": self.mode,
            "published": self.published / 1000, "ended": self.ended / 1000 if self.ended else None,
            "jobs": self.jobs, "open": self.open, "failed": self.failed, "cancelled": self.cancelled,
            "skipped": self.skipped, "retried": self.retried, "salvaged": self.salvaged,
            "deadline": self.published / 1000 + self.fields.deadline if self.fields.deadline else None,
            "queued-behind": self.queued or None, "replaced-by": self.replaced or None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class TxnView:
    """A transaction: the current barrier and its start, the decision, and the steps owed, by host."""

    id: TxnId
    run: RunId
    jobs: int
    barrier: str
    since: int
    decision: str
    number: int
    why: str
    owing: dict[Host, dict[str, int]]
    cut: tuple[float, float] | None = None  # the first and the last instant of the cuts, seconds of Redis' clock
    doubt: str = ""  # why the transaction is not decided, though ready
    begins: int = 0  # the time of the retry; 0: no retry is waiting
    retry: int = 0  # remaining retries of the job

    @property
    def skew(self) -> float | None:
        """Seconds between the first and the last instant of the cuts."""
        return None if self.cut is None else self.cut[1] - self.cut[0]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "run": self.run, "jobs": self.jobs, "barrier": self.barrier,
            "since": self.since / 1000 if self.since else None, "decision": self.decision or None,
            "why": self.why or None, "skew": None if self.skew is None else round(self.skew, 6),
            "doubt": self.doubt or None,
            "begins": self.begins / 1000 if self.begins else None, "retry": self.retry,
            "owing": {host: dict(owed) for host, owed in self.owing.items()},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobPlace:
    """The place of a job's record."""

    host: Host
    job: JobId
    transaction: TxnId


class Views:
    """``internal``: include internal jobs, as the daemons need.

    Of many records, unreadable ones are left out and named in ``odd``; a single record asked for by name is refused
    (Unreadable).
    """

    def __init__(self, client: Client, *, internal: bool = False, odd: Odd | None = None) -> None:
        self._redis, self._internal, self.odd = client, internal, odd or Odd()

    def _visible(self, name: str) -> bool:
        return self._internal or not is_internal(name)

    def place(self, job_id: str) -> JobPlace:
        """The place of a job.  Raises NoSuchJob."""
        found = self._redis.hget(keys.ids(), job_id)
        if found is None or not self._visible(job_id):
            raise NoSuchJob(job_id)
        return decode_or_raise(f"place of job {job_id}", lambda: job_place(JobId(job_id), found))

    def published(self, job_id: str) -> tuple[JobPlace, Status, int]:
        """The place of a job, its status and return value, without reading the rest of the record.

        Raises:
            NoSuchJob: unknown, dismissed, or staged and not published.
        """
        place = self.place(job_id)
        status, ret = self._redis.hmget(keys.job(place.host, place.job), "status", "ret")
        if status in (None, b"undefined"):
            raise NoSuchJob(job_id)
        return decode_or_raise(f"job {job_id}", lambda: (place, Status(_decode_text(status)), int(ret or 0)))

    def job(self, job_id: str) -> JobView:
        """The view of a job.  Raises NoSuchJob: unknown, dismissed, or staged and not published."""
        found = self.at(self.place(job_id))
        if found is None:
            raise NoSuchJob(job_id)
        return found

    def at(self, place: JobPlace) -> JobView | None:
        """The job at a place; None if missing or not published."""
        return next(self._jobs([place], STRICT), None)

    def jobs(self, places: Iterable[JobPlace]) -> Iterator[JobView]:
        """Views of many jobs, in the order given, a page per round trip, without unknown and unpublished jobs."""
        return self._jobs(places, self.odd)

    def _jobs(self, places: Iterable[JobPlace], odd: Odd) -> Iterator[JobView]:
        for page in _split_pages(place for place in places if self._visible(place.job)):
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            for place in page:
                pipe.hgetall(keys.job(place.host, place.job))
                pipe.hgetall(keys.holds(place.host, place.job))
            time, *rows = pipe.execute()
            now = redis_milliseconds(time)
            for place, record, holds in zip(page, rows[::2], rows[1::2], strict=True):
                if record and record.get(b"status") != b"undefined":
                    job = odd.read(f"job {place.job}", partial(_job_view, place, record, holds, now))
                    if job is not None:
                        yield job

    def places(self, run_id: RunId, most: int = 0) -> list[JobPlace]:
        """The jobs of a run, in the order of the file.  ``most``: only the first ``most`` jobs, 0: all."""
        rows = self._redis.lrange(keys.run_jobs(run_id), 0, most - 1)
        found = (self.odd.read(f"a job of run {run_id}, {row!r},", partial(_parse_job_place, row)) for row in rows)
        return [place for place in found if place is not None]

    def all(self) -> list[JobPlace]:
        """Every undismissed job, in no order."""
        ids = self._redis.hgetall(keys.ids())
        places = [readable_place(self.odd, job, place) for job, place in ids.items()]
        return [place for place in places if place is not None and self._visible(place.job)]

    def run_id(self, run_id: str) -> RunId:
        """The id of an existing run, without reading the rest of the record; raises NoSuchRun."""
        if not self._visible(run_id) or self._redis.hget(keys.run(RunId(run_id)), "state") != b"published":
            raise NoSuchRun(run_id)
        return RunId(run_id)

    def outcome(self, run_id: str) -> bool | None:
        """Whether every job of a run succeeded, without reading the rest of the record; None: the run is not over.

        Raises NoSuchRun.
        """
        fields = ("ended", "failed", "cancelled")
        ended, *bad = self._redis.hmget(keys.run(self.run_id(run_id)), fields)
        return decode_or_raise(f"run {run_id}", lambda: not any(int(number or 0) for number in bad)) if ended else None

    def replaced(self, run_ids: Iterable[RunId]) -> dict[RunId, str]:
        """The runs replaced in line, with the later run by replaced run, without reading the rest of the records."""
        names = list(run_ids)
        pipe = self._redis.pipeline(transaction=False)
        for run in names:
            pipe.hget(keys.run(run), "replaced")
        return {run: _decode_text(by) for run, by in zip(names, pipe.execute(), strict=True) if by}

    def run(self, run_id: str) -> RunView:
        """The view of a run.  Raises NoSuchRun."""
        record = self._redis.hgetall(keys.run(RunId(run_id)))
        if not record or record.get(b"state") != b"published" or not self._visible(run_id):
            raise NoSuchRun(run_id)
        return decode_or_raise(f"run {run_id}", lambda: _run_view(RunId(run_id), record))

    def runs_of(self, run_ids: Iterable[RunId], odd: Odd | None = None) -> list[RunView]:
        """The runs of these ids, without unreadable runs, in the order given."""
        read, views = (odd or self.odd).read, []
        for page in _split_pages(run_ids):
            pipe = self._redis.pipeline(transaction=False)
            for run_id in page:
                pipe.hgetall(keys.run(run_id))
            found = zip(page, pipe.execute(), strict=True)
            views += [read(f"run {run}", partial(_run_view, run, record)) for run, record in found if record]
        return [view for view in views if view is not None]

    def verdict(self, run_id: str) -> Verdict:
        """The verdict on a run by the policies of its file; raises NoSuchRun."""
        run = self.run(run_id)
        if run.replaced:  # no job of the run began, which the run file accepts
            return Verdict.PARTIAL
        if not run.fields.policies:  # started without a run file
            return Verdict.FAILED if run.failed or run.cancelled or run.salvaged else Verdict.ALL
        policies = run.fields.policies
        names = Counter(transaction_name(run.id, place.transaction, policies) for place in self.places(run.id))
        bad = {ALONE: run.failed + run.cancelled, **run.bad}
        skipped = Counter(each.transaction for each in run.fields.skipped for _ in each.jobs)
        lost = {ALONE: run.salvaged, **run.salvaged_of}
        counts = {
            name: Count(names[name], bad.get(name, 0), skipped[name], lost.get(name, 0)) for name in policies
        }  # fmt: skip
        return run_verdict(counts, policies)

    def runs(self, *, limit: int = 0, odd: Odd | None = None) -> list[RunView]:
        """Published runs, newest first; ``limit`` 0: all."""
        found = (RunId(_decode_text(run)) for run in self._redis.zrevrange(keys.runs(), 0, -1))
        return self.runs_of([run for run in found if self._visible(run)][: limit or None], odd)

    def transaction(self, txn_id: TxnId) -> TxnView | None:
        """The view of a transaction; None for a finished, forgotten or unreadable one."""
        record = self._redis.hgetall(keys.txn(txn_id))
        if not record:
            return None
        hosts = [Host(_decode_text(name)[5:]) for name in record if name.startswith(b"host:")]
        pipe = self._redis.pipeline(transaction=False)
        for host in hosts:
            pipe.hgetall(keys.tally(host, txn_id))
        pipe.get(keys.clock())
        *rows, clock = pipe.execute()
        shares = dict(zip(hosts, rows, strict=True))
        return self.odd.read(
            f"transaction {txn_id}", lambda: _transaction_view(txn_id, record, shares, parse_clock(clock).jumps)
        )

    def unfinished(self) -> list[TxnId]:
        """Transactions with members to conclude, oldest first."""
        found = (TxnId(_decode_text(txn)) for txn in self._redis.zrange(keys.unfinished(), 0, -1))
        return [txn for txn in found if self._visible(txn)]


def job_place(job: JobId, record: bytes) -> JobPlace:
    """The place of a job from its record in ``ids``."""
    host, txn = _decode_text(record).split(" ")
    return JobPlace(Host(host), job, TxnId(txn))


def readable_place(odd: Odd, job: bytes, record: bytes) -> JobPlace | None:
    """The place of a job among many; None for an unreadable record."""
    name = readable_name(job)
    return odd.read(f"place of job {name}", lambda: job_place(JobId(_decode_text(job)), record))


def _parse_job_place(row: bytes) -> JobPlace:
    host, job, txn = _decode_text(row).split(" ")
    return JobPlace(Host(host), JobId(job), TxnId(txn))


def _transaction_view(
    txn_id: TxnId, record: Mapping[bytes, bytes], shares: Mapping[Host, Mapping[bytes, bytes]], jumps: int
) -> TxnView:
    return TxnView(
        txn_id,
        RunId(_decode_text(record[b"run"])),
        int(record.get(b"jobs", 0)),
        _decode_text(record.get(b"barrier", b"open")),
        int(record.get(b"since", 0)),
        _decode_text(record.get(b"decision", b"")),
        int(record.get(b"number", 0)),
        _decode_text(record.get(b"why", b"")),
        {
            host: {_decode_text(name): int(n) for name, n in owed.items() if not name.startswith(b"cut-")}
            for host, owed in shares.items()
        },
        (int(record[b"cut-begin"]) / 1e6, int(record[b"cut-end"]) / 1e6) if b"cut-end" in record else None,
        _decode_text(record.get(b"doubt", b"")),
        int(record[b"begins"]) + jumps if b"begins" in record else 0,
        int(record.get(b"retry", 0)),
    )


def _job_view(place: JobPlace, r: Mapping[bytes, bytes], holds: Mapping[bytes, bytes], now: int) -> JobView:
    def number(name: bytes) -> int:
        return int(r.get(name, b"0") or b"0")

    spec = JobSpec.from_dict(codec.unpack_value(r[b"spec"]))
    return JobView(
        id=place.job,
        host=place.host,
        transaction=place.transaction,
        run=spec.run,
        status=Status(_decode_text(r[b"status"])),
        type=_decode_text(r[b"type"]),
        spec=spec,
        offset=number(b"offset"),
        len=number(b"len"),
        speed=number(b"speed"),
        busy=r[b"busy"] == b"1",
        holds={_decode_text(k): _decode_text(v) for k, v in holds.items()},
        io_status=_decode_text(r[b"iostatus"]),
        ret=number(b"ret"),
        error=_decode_text(r.get(b"error", b"")),
        cancelled=bool(r.get(b"cancelled")),
        claimed=bool(r[b"attempt"]),
        attempts=number(b"attempts"),
        lost=number(b"lost"),
        passed=_decode_text(r[b"passed"]),
        limit=number(b"limit"),
        full=bool(r.get(b"full")),
        warnings=tuple(_decode_text(r.get(b"warnings", b"")).splitlines()),
        unsettled=_decode_text(r.get(b"unsettled", b"")),
        undefined=_decode_text(r.get(b"undefined", b"")),
        resolved=_decode_text(r.get(b"resolved", b"")),
        published_as=_decode_text(r.get(b"published-as", b"")),
        tries=number(b"try") or 1,
        failed_with=_decode_text(r.get(b"failed-with", b"")),
        died=_decode_text(r.get(b"died", b"")),
        diverging=_parse_rates(r.get(b"diverging", b"")),
        hangs=_parse_hang(r.get(b"hangs", b"")),
        created=number(b"created"),
        started=number(b"started"),
        ended=number(b"ended"),
        now=now,
        bytes=codec.unpack_value(r[b"bytes"]) if r.get(b"bytes") else {},
        result=codec.unpack_value(r[b"result"]) if r.get(b"result") else {},
        cut=Cut.from_dict(codec.unpack_value(r[b"cut"])) if r.get(b"cut") else None,
    )


def _parse_hang(text: bytes) -> tuple[int, str] | None:
    since, _, path = _decode_text(text).partition(" ")
    return (int(since), path) if path else None


def _parse_rates(text: bytes) -> tuple[int, int]:
    dirty, _, copied = text.partition(b" ")
    return int(dirty or 0), int(copied or 0)


def _run_view(run_id: RunId, r: Mapping[bytes, bytes]) -> RunView:
    fields = codec.unpack_value(r[b"fields"])

    def number(name: bytes) -> int:
        return int(r.get(name, b"0"))

    return RunView(
        run_id,
        fields["name"],
        fields["grouped"],
        number(b"published"),
        number(b"ended"),
        number(b"jobs"),
        number(b"open"),
        number(b"failed"),
        number(b"cancelled"),
        number(b"skipped"),
        {_decode_text(name[4:]): int(n) for name, n in r.items() if name.startswith(b"bad:")},
        RunFields.from_dict(fields),
        number(b"began"),
        {_decode_text(name[4:]): int(n) for name, n in r.items() if name.startswith(b"sum:")},
        r.get(b"why", b"").decode(errors="replace"),
        number(b"pruned"),
        number(b"pruned-at"),
        fields.get("layered", False) or b"layered" in r,
        fields.get("retries", ""),
        number(b"retried"),
        "" if b"replaced" in r else _decode_text(r.get(b"queued", b"")),
        number(b"salvaged"),
        {_decode_text(name[9:]): int(n) for name, n in r.items() if name.startswith(b"salvaged:")},
        _decode_text(r.get(b"replaced", b"")),
        b"found" in r,
    )


def _split_pages(items: Iterable[Any]) -> Iterator[Sequence[Any]]:
    rest = iter(items)
    while page := list(islice(rest, PAGE)):
        yield page


def _decode_text(value: bytes) -> str:
    return value.decode()
