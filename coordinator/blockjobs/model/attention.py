"""Detection of needs for a person, from one view of a run; the coordinator sends notices, commands print needs.

Pure: the whole view goes in, with the time by the steady clock.  A need keeps the same name in every view, and the name
prevents a second notice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from blockjobs.model.barriers import BY_HOSTS, Decision, Step
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.policies import span_text
from blockjobs.model.states import ACCEPTS, Status, Verb

HOLDABLE: Final = ACCEPTS[Verb.RESUME]  # in any other status a hold has no effect
CUT: Final = "the cut of "  # how the reason begins why a cut, and no image, could not be removed


class Cause(StrEnum):
    STOPPED = "stopped"  # an error stopped a job, as configured in its run file
    HELD = "held"  # a job is held for too long
    OWES = "owes"  # a host does not answer a step of a transaction
    UNPUBLISHED = "unpublished"  # a transaction is committed, and an image is not published
    UNCLEANED = "uncleaned"  # a transaction is decided, and a file of it could not be removed
    IDLE = "idle"  # a host has free slots and waiting jobs, and no job begins
    UNTOLD = "untold"  # a notice of the run's end was given up
    REFUSED = "refused"  # a start was refused
    OVERDUE = "overdue"  # no run of a name succeeded within the time allowed by the run file


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Seconds that a condition may last before a person is needed."""

    held: float = 1800.0
    owes: float = 600.0
    idle: float = 900.0

    def to_dict(self) -> dict[str, float]:
        return {"held": self.held, "owes": self.owes, "idle": self.idle}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """A job that is not over.  Times in milliseconds by the steady clock, 0 if the condition does not hold.

    ``stopped``: since when an error stops the job.  ``held``: since when the job is held; ``holds``: cause by reason,
    without the hold before the start of the job.  ``unsettled``: why the job could not be settled.
    """

    id: JobId
    host: Host
    transaction: TxnId
    status: Status
    stopped: int = 0
    stopped_by: str = ""
    held: int = 0
    holds: Mapping[str, str] = field(default_factory=dict)
    unsettled: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionSeen:
    """A transaction that is not over, with the current step and the number of members owing the step, by host.

    ``since``: the start of the step in milliseconds by the steady clock; 0: not known.
    """

    id: TxnId
    decision: str = ""
    step: Step | None = None
    since: int = 0
    owing: Mapping[Host, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSeen:
    """The line of jobs waiting for a slot of a host.

    ``since``: since when jobs wait while slots are free and no job begins (ms by the steady clock; 0: the line moves).
    ``why``: a known fault of the host.
    """

    host: Host
    waiting: int
    free: int
    slots: int
    since: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeSeen:
    """A given-up notice of the run's end; ``url`` is redacted."""

    number: int
    outcome: str
    url: str
    tries: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """A view of a run.  ``now``: milliseconds by the steady clock.

    ``many``: the reasons holding many jobs, with the time from which each reason is in force (ms).
    """

    id: RunId
    now: int
    jobs: Sequence[JobSeen] = ()
    transactions: Sequence[TransactionSeen] = ()
    lines: Sequence[LineSeen] = ()
    notices: Sequence[NoticeSeen] = ()
    many: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A condition that needs a person.

    ``mark``: distinguishes this episode from earlier episodes of the same cause and subject.  ``since``: ms by the
    steady clock, 0: not known.
    """

    cause: Cause
    subject: str
    text: str
    since: int = 0
    host: str = ""
    mark: str = ""

    @property
    def name(self) -> str:
        return f"{self.cause} {self.subject}"

    def to_json(self, jumps: int = 0) -> dict[str, Any]:
        """The JSON form; ``jumps``: milliseconds by which Redis' clock is ahead of the steady clock."""
        return {
            "cause": str(self.cause), "subject": self.subject, "host": self.host or None, "text": self.text,
            "since": (self.since + jumps) / 1000 if self.since else None,
        }  # fmt: skip


def needs_of(seen: RunSeen, limits: Thresholds) -> list[Need]:
    """The needs of one run, the most urgent first."""
    return [
        *_unsettled_needs(seen),
        *_stopped_needs(seen),
        *_notice_needs(seen),
        *_owing_needs(seen, limits),
        *_held_needs(seen, limits),
        *_idle_needs(seen, limits),
    ]


def unsettled_text(unsettled: str, decision: str) -> str:
    """The reason why a job of a decided transaction is not settled."""
    commit = decision == Decision.COMMIT
    if commit and not unsettled.startswith(CUT):
        return f"committed, not published: {unsettled}"
    return f"{'committed' if commit else 'aborted'}, not cleaned up: {unsettled}"


def _has_lasted(seen: RunSeen, since: int, seconds: float) -> bool:
    return 0 < since <= seen.now - 1000 * seconds


def _duration_text(seen: RunSeen, since: int) -> str:
    return span_text(max(0, seen.now - since) // 1000)


def _unsettled_needs(seen: RunSeen) -> Iterator[Need]:
    decisions = {txn.id: txn.decision for txn in seen.transactions}
    for job in seen.jobs:
        if job.unsettled:
            text = unsettled_text(job.unsettled, decisions.get(job.transaction, ""))
            cause = Cause.UNPUBLISHED if text.startswith("committed, not published") else Cause.UNCLEANED
            advice = f"; blockjobs resolve {job.id}" * (cause is Cause.UNPUBLISHED)
            yield Need(cause=cause, subject=job.id, host=job.host, text=f"job {job.id} is {text}{advice}")


def _stopped_needs(seen: RunSeen) -> Iterator[Need]:
    for job in seen.jobs:
        if job.stopped:
            text = f"an error stopped job {job.id} on host {job.host}: {job.stopped_by}; blockjobs resume {job.id}"
            yield Need(
                cause=Cause.STOPPED, subject=job.id, host=job.host, since=job.stopped, text=text, mark=str(job.stopped)
            )


def _notice_needs(seen: RunSeen) -> Iterator[Need]:
    for notice in seen.notices:
        tries = f"{notice.tries} {'try' if notice.tries == 1 else 'tries'}"
        text = (
            f"the notification '{notice.outcome}' of run {seen.id} was not sent to {notice.url}, given up after {tries}"
        )
        yield Need(cause=Cause.UNTOLD, subject=f"notice {notice.number}", text=f"{text}: {notice.error}")


def _owing_needs(seen: RunSeen, limits: Thresholds) -> Iterator[Need]:
    answered: dict[tuple[TxnId, Host], int] = {}
    for job in seen.jobs:
        answered[job.transaction, job.host] = answered.get((job.transaction, job.host), 0) + bool(job.unsettled)
    for txn in seen.transactions:
        if txn.step not in BY_HOSTS or not _has_lasted(seen, txn.since, limits.owes):
            continue
        for host, members in sorted(txn.owing.items()):
            if members > answered.get((txn.id, host), 0):  # the host has answered for members that could not be settled
                step = str(txn.step).upper()
                text = f"host {host} owes {step} of transaction {txn.id} for {_duration_text(seen, txn.since)}"
                yield Need(
                    cause=Cause.OWES,
                    subject=f"{txn.id} {host}",
                    host=host,
                    since=txn.since,
                    text=text,
                    mark=f"{txn.step} {txn.since}",
                )


def _held_needs(seen: RunSeen, limits: Thresholds) -> Iterator[Need]:
    """Needs for held jobs: one per job, but a single need for every job held by the same drain or pause-all."""
    many: dict[str, list[JobSeen]] = {}
    for job in seen.jobs:
        if job.stopped or not job.holds or job.status not in HOLDABLE or not _has_lasted(seen, job.held, limits.held):
            continue
        if reason := next((reason for reason in job.holds if reason in seen.many), ""):
            many.setdefault(reason, []).append(job)
            continue
        reason, cause = next(iter(job.holds.items()))
        text = f"job {job.id} on host {job.host} is held by {reason} for {_duration_text(seen, job.held)}"
        yield Need(
            cause=Cause.HELD,
            subject=job.id,
            host=job.host,
            since=job.held,
            text=text + f": {cause}" * bool(cause),
            mark=str(job.held),
        )
    for reason, jobs in many.items():
        since = min(job.held for job in jobs)
        are = f"{len(jobs)} jobs are" if len(jobs) > 1 else f"job {jobs[0].id} is"
        cause = jobs[0].holds[reason]
        text = f"{are} held by {reason} for {_duration_text(seen, since)}" + f": {cause}" * bool(cause)
        yield Need(cause=Cause.HELD, subject=reason, since=since, text=text, mark=str(seen.many[reason]))


def _idle_needs(seen: RunSeen, limits: Thresholds) -> Iterator[Need]:
    for line in seen.lines:
        if _has_lasted(seen, line.since, limits.idle):
            jobs = "1 job waits" if line.waiting == 1 else f"{line.waiting} jobs wait"
            text = f"{jobs} for a slot on host {line.host}, {line.free} of {line.slots} slots are free, and none began"
            yield Need(
                cause=Cause.IDLE,
                subject=line.host,
                host=line.host,
                since=line.since,
                mark=str(line.since),
                text=f"{text} for {_duration_text(seen, line.since)}" + f": {line.why}" * bool(line.why),
            )


def fresh_needs(needs: Iterable[Need], told: Mapping[str, str]) -> list[Need]:
    """The needs without a notice so far; ``told``: the mark of the last notified episode, by name."""
    return [need for need in needs if told.get(need.name) != need.mark]


def in_short(needs: Sequence[Need]) -> str:
    """The needs as one line."""
    more = f"; and {len(needs) - 1} more" if len(needs) > 1 else ""
    return f"{needs[0].text}{more}"
