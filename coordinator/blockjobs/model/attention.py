"""What needs a person, decided from one look at a run: the coordinator tells it, commands say it.

Pure: all that was read goes in, with the time by the steady clock.  A need has the same name at every look, so that
whoever tells it can tell it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from blockjobs.model.barriers import BY_HOSTS, Decision, Step
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.policies import span
from blockjobs.model.states import ACCEPTS, Status, Verb

HOLDABLE: Final = ACCEPTS[Verb.RESUME]  # in any other status a hold holds nothing
CUT: Final = "the cut of "  # how the reason begins why a cut, and no image, could not be removed


class Cause(StrEnum):
    STOPPED = "stopped"  # an error stopped a job, as its run file says
    HELD = "held"  # a job is held, and nobody lifts the hold
    OWES = "owes"  # a host does not answer a step of a transaction
    UNPUBLISHED = "unpublished"  # a transaction is committed, and an image is not published
    UNCLEANED = "uncleaned"  # a transaction is decided, and something of it could not be removed
    IDLE = "idle"  # slots of a host are free, and none of the jobs that wait there begins
    UNTOLD = "untold"  # a notice of the run's end was given up
    REFUSED = "refused"  # a start was refused
    OVERDUE = "overdue"  # no run of a name succeeded within the time that its file allows


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """For how many seconds something may last before it needs a person."""

    held: float = 1800.0
    owes: float = 600.0
    idle: float = 900.0

    def to_dict(self) -> dict[str, float]:
        return {"held": self.held, "owes": self.owes, "idle": self.idle}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """A job that is not over.  Times in milliseconds by the steady clock, 0 where it is not so.

    ``stopped``: since when an error stops it.  ``held``: since when anything holds it; ``holds``: each reason and its
    cause, but that it was not started yet.  ``unsettled``: why it could not be settled.
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
    """A transaction that is not over: the step that it stands at since when (ms, steady clock; 0: not known), and how
    many members of each host owe it."""

    id: TxnId
    decision: str = ""
    step: Step | None = None
    since: int = 0
    owing: Mapping[Host, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSeen:
    """What waits for a slot of a host.  ``since``: since when jobs wait, slots are free and none began (ms by the
    steady clock, 0: it is not so).  ``why``: what is known to be wrong with the host."""

    host: Host
    waiting: int
    free: int
    slots: int
    since: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeSeen:
    """A notice of the end of the run that was given up; ``url`` as it may be shown."""

    number: int
    outcome: str
    url: str
    tries: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """One look at a run.  ``now``: milliseconds by the steady clock.  ``many``: since when each reason is in force that
    holds many jobs (ms)."""

    id: RunId
    now: int
    jobs: Sequence[JobSeen] = ()
    transactions: Sequence[TransactionSeen] = ()
    lines: Sequence[LineSeen] = ()
    notices: Sequence[NoticeSeen] = ()
    many: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that needs a person.  ``mark``: what tells this episode from an earlier one of the same cause and
    subject.  ``since``: ms by the steady clock, 0: not known."""

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
        """``jumps``: milliseconds that the shown clock is ahead of the steady one."""
        return {
            "cause": str(self.cause), "subject": self.subject, "host": self.host or None, "text": self.text,
            "since": (self.since + jumps) / 1000 if self.since else None,
        }  # fmt: skip


def needs_of(seen: RunSeen, limits: Thresholds) -> list[Need]:
    """All that needs a person of one run, the most urgent first."""
    return [
        *_unsettled(seen), *_stopped(seen), *_notices(seen), *_owing(seen, limits), *_held(seen, limits),
        *_idle(seen, limits),
    ]  # fmt: skip


def unsettled_text(unsettled: str, decision: str) -> str:
    """Why a job is not settled although its transaction is decided."""
    commit = decision == Decision.COMMIT
    if commit and not unsettled.startswith(CUT):
        return f"committed, not published: {unsettled}"
    return f"{'committed' if commit else 'aborted'}, not cleaned up: {unsettled}"


def _lasts(seen: RunSeen, since: int, seconds: float) -> bool:
    return 0 < since <= seen.now - 1000 * seconds


def _for(seen: RunSeen, since: int) -> str:
    return span(max(0, seen.now - since) // 1000)


def _unsettled(seen: RunSeen) -> Iterator[Need]:
    decisions = {txn.id: txn.decision for txn in seen.transactions}
    for job in seen.jobs:
        if job.unsettled:
            text = unsettled_text(job.unsettled, decisions.get(job.transaction, ""))
            cause = Cause.UNPUBLISHED if text.startswith("committed, not published") else Cause.UNCLEANED
            advice = f"; blockjobs resolve {job.id}" * (cause is Cause.UNPUBLISHED)
            yield Need(cause=cause, subject=job.id, host=job.host, text=f"job {job.id} is {text}{advice}")


def _stopped(seen: RunSeen) -> Iterator[Need]:
    for job in seen.jobs:
        if job.stopped:
            text = f"an error stopped job {job.id} on host {job.host}: {job.stopped_by}; blockjobs resume {job.id}"
            yield Need(
                cause=Cause.STOPPED, subject=job.id, host=job.host, since=job.stopped, text=text, mark=str(job.stopped)
            )


def _notices(seen: RunSeen) -> Iterator[Need]:
    for notice in seen.notices:
        tries = f"{notice.tries} {'try' if notice.tries == 1 else 'tries'}"
        text = (
            f"that run {seen.id} ended ({notice.outcome}) was not told to {notice.url}, and is given up after {tries}"
        )
        yield Need(cause=Cause.UNTOLD, subject=f"notice {notice.number}", text=f"{text}: {notice.error}")


def _owing(seen: RunSeen, limits: Thresholds) -> Iterator[Need]:
    answered: dict[tuple[TxnId, Host], int] = {}
    for job in seen.jobs:
        answered[job.transaction, job.host] = answered.get((job.transaction, job.host), 0) + bool(job.unsettled)
    for txn in seen.transactions:
        if txn.step not in BY_HOSTS or not _lasts(seen, txn.since, limits.owes):
            continue
        for host, members in sorted(txn.owing.items()):
            if members > answered.get((txn.id, host), 0):  # those that it could not settle it has answered
                step = str(txn.step).upper()
                text = f"host {host} owes {step} of transaction {txn.id} for {_for(seen, txn.since)}"
                yield Need(
                    cause=Cause.OWES, subject=f"{txn.id} {host}", host=host, since=txn.since, text=text,
                    mark=f"{txn.step} {txn.since}",
                )  # fmt: skip


def _held(seen: RunSeen, limits: Thresholds) -> Iterator[Need]:
    """Jobs that are held one by one; those that a drain or a pause-all holds count as one."""
    many: dict[str, list[JobSeen]] = {}
    for job in seen.jobs:
        if job.stopped or not job.holds or job.status not in HOLDABLE or not _lasts(seen, job.held, limits.held):
            continue
        if reason := next((reason for reason in job.holds if reason in seen.many), ""):
            many.setdefault(reason, []).append(job)
            continue
        reason, cause = next(iter(job.holds.items()))
        text = f"job {job.id} on host {job.host} is held by {reason} for {_for(seen, job.held)}"
        yield Need(
            cause=Cause.HELD, subject=job.id, host=job.host, since=job.held, text=text + f": {cause}" * bool(cause),
            mark=str(job.held),
        )  # fmt: skip
    for reason, jobs in many.items():
        since = min(job.held for job in jobs)
        are = f"{len(jobs)} jobs are" if len(jobs) > 1 else f"job {jobs[0].id} is"
        cause = jobs[0].holds[reason]
        text = f"{are} held by {reason} for {_for(seen, since)}" + f": {cause}" * bool(cause)
        yield Need(cause=Cause.HELD, subject=reason, since=since, text=text, mark=str(seen.many[reason]))


def _idle(seen: RunSeen, limits: Thresholds) -> Iterator[Need]:
    for line in seen.lines:
        if _lasts(seen, line.since, limits.idle):
            jobs = "1 job waits" if line.waiting == 1 else f"{line.waiting} jobs wait"
            text = f"{jobs} for a slot on host {line.host}, {line.free} of {line.slots} slots are free, and none began"
            yield Need(
                cause=Cause.IDLE, subject=line.host, host=line.host, since=line.since, mark=str(line.since),
                text=f"{text} for {_for(seen, line.since)}" + f": {line.why}" * bool(line.why),
            )  # fmt: skip


def fresh(needs: Iterable[Need], told: Mapping[str, str]) -> list[Need]:
    """Those that were not told before; ``told``: the mark of the last episode of each name that was."""
    return [need for need in needs if told.get(need.name) != need.mark]


def in_short(needs: Sequence[Need]) -> str:
    """Some needs as one line."""
    more = f"; and {len(needs) - 1} more" if len(needs) > 1 else ""
    return f"{needs[0].text}{more}"
