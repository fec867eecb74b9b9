"""What a run asks for beside its jobs: how each of its transactions ends well, where stores lie, its own terms.

A run's record keeps it as one dict, ``RunFields.to_dict``; ``verdict`` says how a run ended by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final

from blockjobs.model.exits import Exit
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.numbers import milliseconds_of, whole

RETRY_WAIT: Final = 30  # seconds before the first time that what failed is tried again
LONGEST_WAIT: Final = 900  # before any of them, unless the file asks for more
_TRY: Final = re.compile(r"\.try\d+$", re.ASCII)
ALONE: Final = ""  # the name of what a run consists of that has no named transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """What becomes of a run of which hosts are away: it fails, it goes without them, or it waits (seconds)."""

    what: str = "fail"  # fail, skip, wait
    seconds: int = 0

    def __str__(self) -> str:
        return f"wait {self.seconds}s" if self.what == "wait" else self.what

    @classmethod
    def of(cls, text: str) -> Offline:
        """What ``str`` made."""
        what, _, rest = text.partition(" ")
        return cls(what=what, seconds=int(rest.removesuffix("s") or 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One transaction of a run file.  ``succeed_if``: percent of its jobs, None where it does not say; ``salvaged``: a
    job counts also if parts of its source could not be read.

    ``retry``: how often a job of it that failed is tried again, the first time ``retry_wait`` seconds later.
    """

    grouped: bool = True
    offline: Offline = field(default_factory=Offline)
    retry: int = 0
    retry_wait: int = RETRY_WAIT
    succeed_if: float | None = None
    salvaged: bool = False
    keep: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole(self.retry, "retry")
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
            grouped=keys["grouped"], offline=Offline.of(keys["offline"]), retry=keys["retry"],
            retry_wait=keys.get("retry-wait", RETRY_WAIT), succeed_if=keys["succeed-if"], keep=dict(keys["keep"]),
            salvaged=keys.get("salvaged", False),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where targets lie; ``jobs`` and ``speed`` (bytes/s) are limits over all hosts, 0: none."""

    path: str
    jobs: int = 0
    speed: int = 0

    def __post_init__(self) -> None:
        whole(self.jobs, f"store at {self.path}: jobs")
        whole(self.speed, f"store at {self.path}: speed")

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "jobs": self.jobs, "speed": self.speed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What a run went without: jobs by name, or sources of which nobody could say how many jobs they are."""

    transaction: str
    host: str
    jobs: tuple[str, ...]
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"transaction": self.transaction, "host": self.host, "jobs": list(self.jobs), "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFields:
    """All of it.  Times in seconds, 0 where the file says nothing."""

    policies: Mapping[str, Policy] = field(default_factory=dict)
    stores: Mapping[str, Store] = field(default_factory=dict)
    deadline: int = 0
    hold_timeout: int = 0
    on_overlap: str = ""  # "": others of its name do not matter, as to runs that no file describes
    file: str = ""
    notify: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    overdue: int = 0  # within which a run of its name has to succeed
    part: bool = False  # only some transactions of its file: that it succeeds says nothing of its name

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
        """Also of a record that has none of it."""
        return cls(
            policies={name: Policy.from_dict(each) for name, each in keys.get("policies", {}).items()},
            stores={name: Store(**each) for name, each in keys.get("stores", {}).items()},
            deadline=keys.get("deadline", 0), hold_timeout=keys.get("hold-timeout", 0),
            on_overlap=keys.get("on-overlap", ""), file=keys.get("file", ""),
            overdue=keys.get("overdue", 0), part=keys.get("part", False),
            notify={name: tuple(urls) for name, urls in keys.get("notify", {}).items()},
            skipped=tuple(
                Skipped(transaction=name, host=host, jobs=tuple(jobs), why=why)
                for name, host, jobs, why in keys.get("skipped", [])
            ),
        )  # fmt: skip


def span(seconds: int) -> str:
    """A time as a run file writes it: 21600 -> ``6h``, 5400 -> ``1h30m``."""
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        n, seconds = divmod(seconds, length)
        parts += [f"{n}{unit}"] * bool(n)
    return "".join(parts) or "0s"


def retry_after(wait: int, number: int) -> int:
    """Seconds before a failed job is tried again for the ``number``-th time: ever longer, as what is out of order was
    not mended by then.
    """
    return int(min(wait * 2 ** min(number - 1, 20), max(wait, LONGEST_WAIT)))


# --- which transaction of the file --------------------------------------------------------------------


def transaction_id(run: RunId, name: str, job: JobId, *, grouped: bool) -> TxnId:
    """``RUN.NAME`` of a grouped one, ``RUN.NAME.JOB`` of the members of an individual one; without a name as ever."""
    if not name:
        return TxnId(run if grouped else job)
    return TxnId(f"{run}.{name}" if grouped else f"{run}.{name}{job.removeprefix(run)}")


def next_try(txn: TxnId, number: int, longest: int) -> TxnId:
    """The transaction in which a job of an individual one is tried for the ``number``-th time.

    It is another one: on the host nothing is ever made again under the name of one that is over.
    """
    end = f".try{number}"
    return TxnId(f"{_TRY.sub('', txn)[: longest - len(end)]}{end}")


def transaction_name(run: RunId, txn: TxnId, policies: Iterable[str]) -> str:
    """The name in the run file; names have no dot, so that this is one way only."""
    name = txn.removeprefix(f"{run}.").partition(".")[0]
    return name if name in policies else ALONE


# --- how it ended ---------------------------------------------------------------------------------------


class Verdict(IntEnum):
    """How a run ended; the number is the exit code."""

    ALL = Exit.ALL
    FAILED = Exit.FAILED
    PARTIAL = Exit.PARTIAL  # not all of it, and the file says that this will do


class RunOutcome(StrEnum):
    """How a run ended, in a word: what became of its jobs, whatever its file says will do."""

    COMMITTED = "committed"
    PARTLY = "partly committed"
    ABORTED = "aborted"  # nothing is left of it: something failed
    CANCELLED = "cancelled"  # nothing is left of it, and nothing failed
    FOUND = "found"  # nobody knows: a rescan found what there is of it
    SKIPPED = "skipped"  # it waited for another run of its name, and a later start took its place


def replaced_text(by: str) -> str:
    """Why a run was skipped that waited for another one of its name; ``by``: the run that waits in its place."""
    return f"replaced by run {by}, which was started later"


def outcome_of(jobs: int, failed: int, cancelled: int) -> RunOutcome:
    """How a run of so many jobs ended, of which so many failed and were cancelled."""
    if not failed + cancelled:
        return RunOutcome.COMMITTED
    if failed + cancelled < jobs:
        return RunOutcome.PARTLY
    return RunOutcome.ABORTED if failed else RunOutcome.CANCELLED


@dataclass(frozen=True, slots=True)
class Count:
    """A transaction of the file: jobs that were started, those of them that ended badly, those left out, and those that
    committed although parts of their sources could not be read."""

    jobs: int = 0
    bad: int = 0
    skipped: int = 0
    salvaged: int = 0


def verdict(counts: Mapping[str, Count], policies: Mapping[str, Policy]) -> Verdict:
    """How a run ended that is over; the worst of its transactions counts.

    Where a share is asked for, a job that was left out counts as one that is not there.
    """
    each = [_one(count, policies.get(name, Policy())) for name, count in counts.items()]
    return next((worst for worst in (Verdict.FAILED, Verdict.PARTIAL) if worst in each), Verdict.ALL)


def _one(count: Count, policy: Policy) -> Verdict:
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
