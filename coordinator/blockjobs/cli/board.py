"""The state of the jobs of some runs, kept current by events: an event costs a step, for any number of jobs.

Pure: events, glances and the time are passed in.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from blockjobs.cli.phrases import name_within_run
from blockjobs.model.ids import JobId, RunId
from blockjobs.model.policies import RunOutcome, outcome_of
from blockjobs.model.states import Status
from blockjobs.registry.events import Event
from blockjobs.registry.glances import Glance
from blockjobs.registry.views import JobPlace, JobView, RunView

WINDOW: Final = 6.0  # seconds of the window that measures a rate; attempts report every two seconds
OVER: Final = ("done", "failed", "cancelled")


@dataclass(slots=True)
class Rate:
    """Bytes a second over the last few seconds."""

    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, now: float, offset: int) -> None:
        if self._samples and offset < self._samples[-1][1]:  # a new attempt, from an earlier checkpoint
            self._samples.clear()
        self._samples.append((now, offset))
        while now - self._samples[0][0] > WINDOW:
            self._samples.popleft()

    @property
    def value(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (began, first), (now, last) = self._samples[0], self._samples[-1]
        return (last - first) / (now - began) if now > began else 0.0


@dataclass(slots=True)
class Row:
    """The state of a job."""

    place: JobPlace
    run: RunId
    status: Status = Status.CREATED
    claimed: bool = False
    held: set[str] = field(default_factory=set)
    offset: int = 0
    len: int = 0
    error: str = ""  # error of a failed job
    note: str = ""  # why the job cannot be settled yet
    undefined: str = ""  # why the content of the target is undefined
    outcome: str = ""  # "" or an entry of OVER
    rate: Rate = field(default_factory=Rate)

    @property
    def name(self) -> str:
        return name_within_run(self.place.job, self.run)

    @property
    def word(self) -> str:
        """The job's status, made more precise where a status has several meanings."""
        if self.outcome or self.status not in (Status.RUNNING, Status.READY):
            return self.outcome or str(self.status)
        if not self.claimed:
            return "queued"
        return "pausing" if self.held else str(self.status)

    @property
    def eta(self) -> float | None:
        """Seconds to the end of the copy."""
        return seconds_to_end(self.offset, self.len, self.rate.value) if self.word == "running" else None

    @classmethod
    def of(cls, job: JobView) -> Row:
        over = job.status is Status.CONCLUDED
        bad = "cancelled" if job.cancelled and job.ret == -125 else "failed"
        return cls(
            JobPlace(job.host, job.id, job.transaction),
            job.run,
            job.status,
            job.claimed,
            {reason for reason in job.holds if reason != "created"},
            job.offset,
            job.len,
            job.error,
            job.unsettled,
            job.undefined,
            ("done" if job.ret == 0 else bad) if over else "",
        )


@dataclass(slots=True)
class Tally:
    """The state of a run: sums over the jobs."""

    id: RunId
    jobs: int
    began: float = 0.0  # seconds since the epoch
    ended: float = 0.0
    decision: str = ""
    late: str = ""  # why undecided transactions were cancelled
    replaced: str = ""  # the later run that replaced this run in the queue
    offset: int = 0
    len: int = 0
    words: Counter[str] = field(default_factory=Counter)
    rate: Rate = field(default_factory=Rate)

    @property
    def outcome(self) -> RunOutcome:
        """The outcome of an ended run."""
        return (
            RunOutcome.SKIPPED
            if self.replaced
            else outcome_of(self.jobs, self.words["failed"], self.words["cancelled"])
        )

    @property
    def eta(self) -> float | None:
        return seconds_to_end(self.offset, self.len, self.rate.value) if not self.ended else None


class Board:
    def __init__(self) -> None:
        self.rows: dict[JobId, Row] = {}
        self.runs: dict[RunId, Tally] = {}
        self.hosts: set[str] = set()
        self.claimed: dict[JobId, None] = {}  # in the order of the claims
        self.changed: dict[JobId, None] = {}  # since the last ``polled``
        self.gone: list[RunId] = []  # followed runs that were removed from the registry

    @property
    def ended(self) -> bool:
        return all(tally.ended for tally in self.runs.values())

    def add(self, run: RunView, rows: Iterable[Row]) -> None:
        """Follow a run from now on.  ``rows``: the jobs of the run without the dismissed jobs."""
        tally = self.runs[run.id] = Tally(
            run.id, run.jobs, run.published / 1000, run.ended / 1000, replaced=run.replaced
        )
        for row in rows:
            self.rows[row.place.job] = row
            self.hosts.add(row.place.host)
            self._count(tally, row, 1)
            self._claim(row)

    def drop(self, run: RunId) -> None:
        """Follow a run no longer."""
        del self.runs[run]
        for job in [job for job, row in self.rows.items() if row.run == run]:
            del self.rows[job]
            self.claimed.pop(job, None)
            self.changed.pop(job, None)

    def apply(self, event: Event) -> bool:
        """Apply an event; return False if its run and its host are not followed."""
        tally = self.runs.get(RunId(event.run))
        if tally is None:
            return event.name.startswith("HOST_") and event.host in self.hosts
        row = self.rows.get(JobId(event.id))
        if row is not None:
            self._count(tally, row, -1)
            _apply_event(row, event)
            self._count(tally, row, 1)
            self._claim(row)
            self.changed[row.place.job] = None
        match event.name:
            case "RUN_PUBLISHED":
                tally.began = event.at
            case "RUN_ENDED":
                tally.ended = event.at
            case "RUN_REPLACED":
                tally.replaced = event.fields["by"]
            case "RUN_LATE":
                tally.late = event.fields["reason"]
            case "TRANSACTION_DECIDED":
                tally.decision = event.fields["decision"]
        return True

    def to_poll(self) -> list[JobPlace]:
        """The jobs to poll for progress: running jobs, and jobs with an event since the last poll."""
        ids = {**self.claimed, **self.changed}
        return [self.rows[job].place for job in ids]

    def polled(self, glances: Mapping[JobId, Glance], now: float) -> None:
        """Apply the progress read for ``to_poll``."""
        for job, glance in glances.items():
            row = self.rows[job]
            tally = self.runs[row.run]
            self._count(tally, row, -1)
            row.offset, row.len = glance.offset, glance.len
            self._count(tally, row, 1)
            if row.word == "running":
                row.rate.add(now, row.offset)
        self.changed.clear()
        for tally in self.runs.values():
            if not tally.ended:
                tally.rate.add(now, tally.offset)

    def visible(self, limit: int) -> list[Row]:
        """The jobs to show: every job if ``limit`` is enough, else running jobs."""
        if len(self.rows) <= limit:
            return list(self.rows.values())
        return [self.rows[job] for job in list(self.claimed)[:limit]]

    def _count(self, tally: Tally, row: Row, sign: int) -> None:
        tally.words[row.word] += sign
        tally.offset += sign * row.offset
        tally.len += sign * row.len

    def _claim(self, row: Row) -> None:
        if row.claimed:
            self.claimed[row.place.job] = None
        else:
            self.claimed.pop(row.place.job, None)


def _apply_event(row: Row, event: Event) -> None:
    f = event.fields
    match event.name:
        case "JOB_STATUS_CHANGE":
            row.status = Status(f["status"])
            if row.status not in (Status.RUNNING, Status.PAUSED, Status.READY, Status.STANDBY):
                row.claimed = False
            if row.status is Status.CONCLUDED and "again" not in f:
                row.outcome = "done" if f["from"] == Status.PENDING else "failed" if row.error else "cancelled"
                row.note = ""
        case "ATTEMPT_CLAIMED":
            row.claimed = True
        case "ATTEMPT_RELEASED":
            row.claimed = False
        case "JOB_HELD":
            row.held.add(f["reason"])
        case "JOB_UNHELD":
            row.held.discard(f["reason"])
        case "BLOCK_JOB_COMPLETED":
            row.error = f.get("error", "")
            row.offset, row.len = int(f["offset"]), int(f["len"])
        case "JOB_UNSETTLED":
            row.note = f["error"]
        case "JOB_RESOLVED":
            row.note = ""
        case "JOB_RETRIED":
            row.error = row.note = row.undefined = ""
            row.offset = row.len = 0
        case "TARGET_UNDEFINED":
            row.undefined = f["reason"]


def seconds_to_end(offset: int, length: int, rate: float) -> float | None:
    """Seconds left; None if unknown."""
    return (length - offset) / rate if rate > 0 and length > offset else None
