"""The facts of a run's report: read once, for text, JSON or a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from blockjobs.cli.history import HistoryEntry, past_of
from blockjobs.cli.phrases import event_sentence
from blockjobs.client.fleet import Fleet
from blockjobs.model.policies import transaction_name
from blockjobs.model.states import Status
from blockjobs.registry.events import Event
from blockjobs.registry.views import JobView, TxnView

SLOWEST: Final = 3  # jobs whose events the report lists
MOST: Final = 200  # events of a listed job
BYTES: Final = ("read", "written", "zero", "skipped")


@dataclass(frozen=True, slots=True)
class Group:
    """Some jobs of a run, summed up: the jobs of a host, or of a transaction of the run file."""

    name: str
    jobs: int
    failed: int
    cancelled: int
    read: int
    written: int
    seconds: float  # from the first start to the last end

    @property
    def rate(self) -> float:
        return self.read / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "jobs": self.jobs, "failed": self.failed, "cancelled": self.cancelled,
            "read": self.read, "written": self.written, "seconds": round(self.seconds, 3), "rate": round(self.rate),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """The facts of a run.  ``jobs``: the jobs still on record, failed jobs first, then the slowest."""

    past: HistoryEntry
    jobs: tuple[JobView, ...]
    transactions: tuple[Group, ...]
    decisions: tuple[TxnView, ...]
    hosts: tuple[Group, ...]
    events: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[JobView, ...]:
        return tuple(job for job in self.jobs if is_unsuccessful(job))

    @property
    def dismissed(self) -> int:
        return self.past.run.jobs - len(self.jobs)

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.past.to_json(), "skipped": [
                {"transaction": s.transaction, "host": s.host, "jobs": list(s.jobs), "why": s.why}
                for s in self.past.run.fields.skipped
            ],
            "transactions": [group.to_json() for group in self.transactions],
            "decisions": [txn.to_json() for txn in self.decisions],
            "hosts": [group.to_json() for group in self.hosts],
            "jobs": [job_json(job) for job in self.jobs], "dismissed": self.dismissed,
            "slowest": {
                job: [{"time": event.at, "event": event.name, "text": event_sentence(event)} for event in events]
                for job, events in self.events.items()
            },
        }  # fmt: skip


def gather_report(fleet: Fleet, run_id: str) -> Report:
    """Read a run; raises NoSuchRun."""
    run = fleet.run(run_id)
    views = sorted(
        (job for job in fleet.list(run.id) if job.run == run.id),
        key=lambda job: (not is_unsuccessful(job), -job.elapsed),
    )
    policies = run.fields.policies
    named: dict[str, list[JobView]] = {}
    hosts: dict[str, list[JobView]] = {}
    for job in views:
        named.setdefault(transaction_name(run.id, job.transaction, policies) or run.id, []).append(job)
        hosts.setdefault(job.host, []).append(job)
    over = (fleet.registry.views.transaction(txn) for txn in dict.fromkeys(job.transaction for job in views))
    decided = tuple(txn for txn in over if txn is not None)
    slowest = [job.id for job in sorted(views, key=lambda job: -job.elapsed)[:SLOWEST]]
    return Report(
        past_of(fleet, run),
        tuple(views),
        _sorted_groups(named),
        decided,
        _sorted_groups(hosts),
        _events_of_jobs(fleet, slowest, run.published, run.ended),
    )


def is_unsuccessful(job: JobView) -> bool:
    return job.status in (Status.ABORTING, Status.CONCLUDED) and job.ret != 0


def _sorted_groups(members: Mapping[str, Sequence[JobView]]) -> tuple[Group, ...]:
    return tuple(_group_of_jobs(name, each) for name, each in sorted(members.items()))


def _group_of_jobs(name: str, members: Sequence[JobView]) -> Group:
    starts = [job.started for job in members if job.started]
    ends = [job.ended or job.now for job in members if job.started]
    return Group(
        name,
        len(members),
        sum(is_unsuccessful(job) and not job.cancelled for job in members),
        sum(is_unsuccessful(job) and job.cancelled for job in members),
        sum(job.bytes.get("read", 0) for job in members),
        sum(job.bytes.get("written", 0) for job in members),
        (max(ends) - min(starts)) / 1000 if starts else 0.0,
    )


def _events_of_jobs(fleet: Fleet, wanted: Sequence[str], since: int, until: int) -> dict[str, tuple[Event, ...]]:
    """The events still known of some jobs, from one reading of the stream over the time of the run."""
    told: dict[str, list[Event]] = {job: [] for job in wanted}
    for event in fleet.registry.events.all(f"{since - 1}-0") if wanted else ():
        if event.id in told and len(told[event.id]) < MOST:
            told[event.id].append(event)
        if until and event.at * 1000 > until + 1000:
            break
    return {job: tuple(events) for job, events in told.items() if events}


def job_json(job: JobView) -> dict[str, Any]:
    return job.to_json() | {"ret": job.ret, "attempts": job.attempts, "bytes": job.bytes, "result": job.result}
