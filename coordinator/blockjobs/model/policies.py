"""The terms of a run beside the jobs: success and retry policies of transactions, stores, deadlines.

The record of a run stores the terms as one dict, ``RunFields.to_dict``; ``run_verdict`` applies the terms at the end of
a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final

from blockjobs.model.exits import Exit
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.numbers import milliseconds_of, whole_number

RETRY_WAIT: Final = 30  # seconds before the first retry of a failed job
LONGEST_WAIT: Final = 900  # seconds before any retry, unless the run file sets a longer wait
_TRY: Final = re.compile(r"\.try\d+$", re.ASCII)
ALONE: Final = ""  # the transaction name in a run without named transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """The policy for hosts that are away: the run fails, goes without the hosts, or waits ``seconds`` seconds."""

    what: str = "fail"  # fail, skip, wait
    seconds: int = 0

    def __str__(self) -> str:
        return f"wait {self.seconds}s" if self.what == "wait" else self.what

    @classmethod
    def of(cls, text: str) -> Offline:
        """Parse the form made by ``str``."""
        what, _, rest = text.partition(" ")
        return cls(what=what, seconds=int(rest.removesuffix("s") or 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One transaction of a run file.

    ``succeed_if``: percent of jobs needed for success, None if not set; ``salvaged``: a job counts even with unreadable
    parts in the source.  ``retry``: retries of a failed job, the first after ``retry_wait`` seconds.
    """

    grouped: bool = True
    offline: Offline = field(default_factory=Offline)
    retry: int = 0
    retry_wait: int = RETRY_WAIT
    succeed_if: float | None = None
    salvaged: bool = False
    keep: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole_number(self.retry, "retry")
        milliseconds_of(self.retry_wait, "retry-wait")

    def to_dict(self) -> dict[str, Any]:
        return {
            "grouped": self.grouped, "offline": str(self.offline), "retry": self.retry,
            "retry-wait": self.retry_wait, "succeed-if": self.succeed_if, "keep": dict(self.keep),
            **({"salvaged": True} if self.salvaged else {}),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any]) -> Policy:
        return cls(
            grouped=keys["grouped"],
            offline=Offline.of(keys["offline"]),
            retry=keys["retry"],
            retry_wait=keys.get("retry-wait", RETRY_WAIT),
            succeed_if=keys["succeed-if"],
            keep=dict(keys["keep"]),
            salvaged=keys.get("salvaged", False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A store of targets; ``jobs`` and ``speed`` (bytes/s) are limits over all hosts, 0: no limit."""

    path: str
    jobs: int = 0
    speed: int = 0

    def __post_init__(self) -> None:
        whole_number(self.jobs, f"store at {self.path}: jobs")
        whole_number(self.speed, f"store at {self.path}: speed")

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "jobs": self.jobs, "speed": self.speed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Jobs left out of a run by name, or source patterns that no host could expand to jobs."""

    transaction: str
    host: str
    jobs: tuple[str, ...]
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"transaction": self.transaction, "host": self.host, "jobs": list(self.jobs), "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFields:
    """The run-level fields of a run file: policies, stores, deadlines, notices.  Times in seconds; 0 means not set."""

    policies: Mapping[str, Policy] = field(default_factory=dict)
    stores: Mapping[str, Store] = field(default_factory=dict)
    deadline: int = 0
    hold_timeout: int = 0
    on_overlap: str = ""  # "": runs of the same name may overlap, as for a run without a run file
    file: str = ""
    notify: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    overdue: int = 0  # seconds within which a run of the name has to succeed
    part: bool = False  # only some transactions of the file: a success says nothing about the name

    def __post_init__(self) -> None:
        milliseconds_of(self.overdue, "overdue")
        milliseconds_of(self.deadline, "deadline")
        milliseconds_of(self.hold_timeout, "hold-timeout")

    def to_dict(self) -> dict[str, Any]:
        return {
            "policies": {name: policy.to_dict() for name, policy in self.policies.items()},
            "stores": {name: store.to_dict() for name, store in self.stores.items()},
            "deadline": self.deadline, "hold-timeout": self.hold_timeout, "on-overlap": self.on_overlap,
            "file": self.file, "notify": {name: list(urls) for name, urls in self.notify.items()},
            "skipped": [[each.transaction, each.host, list(each.jobs), each.why] for each in self.skipped],
            **({"overdue": self.overdue} if self.overdue else {}), **({"part": True} if self.part else {}),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any]) -> RunFields:
        """Parse the stored form, also from a record without these fields."""
        return cls(
            policies={name: Policy.from_dict(each) for name, each in keys.get("policies", {}).items()},
            stores={name: Store(**each) for name, each in keys.get("stores", {}).items()},
            deadline=keys.get("deadline", 0),
            hold_timeout=keys.get("hold-timeout", 0),
            on_overlap=keys.get("on-overlap", ""),
            file=keys.get("file", ""),
            overdue=keys.get("overdue", 0),
            part=keys.get("part", False),
            notify={name: tuple(urls) for name, urls in keys.get("notify", {}).items()},
            skipped=tuple(
                Skipped(transaction=name, host=host, jobs=tuple(jobs), why=why)
                for name, host, jobs, why in keys.get("skipped", [])
            ),
        )


def span_text(seconds: int) -> str:
    """A time as a run file writes it: 21600 -> ``6h``, 5400 -> ``1h30m``."""
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        n, seconds = divmod(seconds, length)
        parts += [f"{n}{unit}"] * bool(n)
    return "".join(parts) or "0s"


def retry_after(wait: int, number: int) -> int:
    """Seconds before the ``number``-th retry of a failed job.

    The wait doubles from retry to retry, as the earlier wait was too short for a repair, up to the longer of ``wait``
    and ``LONGEST_WAIT``.
    """
    return int(min(wait * 2 ** min(number - 1, 20), max(wait, LONGEST_WAIT)))


# --- the transactions of a run file -------------------------------------------------------------------


def transaction_id(run: RunId, name: str, job: JobId, *, grouped: bool) -> TxnId:
    """``RUN.NAME`` for a grouped transaction, ``RUN.NAME.JOB`` for an individual one; RUN or JOB without a name."""
    if not name:
        return TxnId(run if grouped else job)
    return TxnId(f"{run}.{name}" if grouped else f"{run}.{name}{job.removeprefix(run)}")


def next_try(txn: TxnId, number: int, longest: int) -> TxnId:
    """The transaction of the ``number``-th retry of a job.

    A retry needs a new transaction id: a host never makes files again under the id of a finished transaction.
    """
    end = f".try{number}"
    return TxnId(f"{_TRY.sub('', txn)[: longest - len(end)]}{end}")


def transaction_name(run: RunId, txn: TxnId, policies: Iterable[str]) -> str:
    """The name of a transaction in the run file; a name has no dot, so the inverse is unique."""
    name = txn.removeprefix(f"{run}.").partition(".")[0]
    return name if name in policies else ALONE


# --- the end of a run ---------------------------------------------------------------------------------


class Verdict(IntEnum):
    """The verdict on a run; the number is the exit code."""

    ALL = Exit.ALL
    FAILED = Exit.FAILED
    PARTIAL = Exit.PARTIAL  # partly committed, accepted by `succeed-if`


class RunOutcome(StrEnum):
    """The outcome of a run: the fate of its jobs, regardless of `succeed-if`."""

    COMMITTED = "committed"
    PARTLY = "partly committed"
    ABORTED = "aborted"  # every job is undone: at least one failed
    CANCELLED = "cancelled"  # every job is undone, and none failed
    FOUND = "found"  # unknown: a rescan found backups of the run
    SKIPPED = "skipped"  # replaced by a later start while waiting for an active run of the same name


def replaced_text(by: str) -> str:
    """Why a waiting run was skipped; ``by``: the run now waiting in its place."""
    return f"replaced by run {by}, which was started later"


def outcome_of(jobs: int, failed: int, cancelled: int) -> RunOutcome:
    """The outcome of a run from the number of its jobs, of failed and of cancelled jobs."""
    if not failed + cancelled:
        return RunOutcome.COMMITTED
    if failed + cancelled < jobs:
        return RunOutcome.PARTLY
    return RunOutcome.ABORTED if failed else RunOutcome.CANCELLED


@dataclass(frozen=True, slots=True)
class Count:
    """A transaction of the run file in figures.

    ``jobs``: started jobs; ``bad``: started jobs that failed or were cancelled; ``skipped``: jobs left out;
    ``salvaged``: committed jobs with unreadable parts in the source.
    """

    jobs: int = 0
    bad: int = 0
    skipped: int = 0
    salvaged: int = 0


def run_verdict(counts: Mapping[str, Count], policies: Mapping[str, Policy]) -> Verdict:
    """The verdict on a finished run: the verdict on the worst transaction.

    For `succeed-if`, a job left out counts as a job without a commit.
    """
    each = [_transaction_verdict(count, policies.get(name, Policy())) for name, count in counts.items()]
    return next((worst for worst in (Verdict.FAILED, Verdict.PARTIAL) if worst in each), Verdict.ALL)


def _transaction_verdict(count: Count, policy: Policy) -> Verdict:
    wanted, good = count.jobs + count.skipped, count.jobs - count.bad
    if count.salvaged and not policy.salvaged:
        return Verdict.FAILED
    if good == wanted:
        return Verdict.PARTIAL if count.salvaged else Verdict.ALL
    if policy.succeed_if is not None:
        met = good > 0 and 100 * good >= policy.succeed_if * wanted - 1e-9
    else:
        met = count.bad == 0
    return Verdict.PARTIAL if met else Verdict.FAILED
