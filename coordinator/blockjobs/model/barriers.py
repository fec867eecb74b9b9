"""The way of a transaction: which barrier comes next, who owes it, and when its fate is decided.

Pure: a view goes in, what to do comes out.  All members pass one barrier before any meets the next.

    open -> cut -> start -> run -> pend -> (finalize, owed by the user) -> prepare
    DECISION -> stop (of an abort) -> settle -> conclude

``open``, ``cut``, ``prepare`` and ``settle`` are answered by the hosts; ``run`` by the attempts; the finalizer
itself does ``start``, ``pend``, ``stop`` (of an abort) and ``conclude``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from blockjobs.model.ids import Host, RunId, TxnId


class Step(StrEnum):
    OPEN = "open"
    CUT = "cut"
    START = "start"
    RUN = "run"
    PEND = "pend"
    PREPARE = "prepare"
    STOP = "stop"
    SETTLE = "settle"
    CONCLUDE = "conclude"


class Decision(StrEnum):
    COMMIT = "commit"
    ABORT = "abort"


BY_HOSTS: Final = frozenset({Step.OPEN, Step.CUT, Step.PREPARE, Step.SETTLE})
FORWARD: Final = (Step.OPEN, Step.CUT, Step.START, Step.RUN, Step.PEND, Step.PREPARE)
AFTER: Final = {Decision.COMMIT: (Step.SETTLE, Step.CONCLUDE), Decision.ABORT: (Step.STOP, Step.SETTLE, Step.CONCLUDE)}

# What a member may have passed last when it answers a step.  A settle comes after anything: an abort may.
_BEFORE: Final = {
    Step.OPEN:    ("",),
    Step.CUT:     (Step.OPEN,),
    Step.PREPARE: (Step.RUN,),
    Step.SETTLE:  ("", Step.OPEN, Step.CUT, Step.RUN, Step.PREPARE),
}  # fmt: skip


def before(step: str) -> str:
    """The steps that may precede ``step``, as the scripts want them: a comma before, between and behind."""
    return f",{','.join(_BEFORE[Step(step)])},"


@dataclass(frozen=True, slots=True)
class HostTally:
    """One host's part of a transaction: how many of its members still owe each step, and how many failed."""

    owing: Mapping[Step, int]
    failed: int = 0
    cut: tuple[int, int] | None = None  # the first and the last instant of its cuts, in microseconds
    crash: int = 0  # cuts that are of no instant

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> HostTally:
        cut = (counts["cut-begin"], counts["cut-end"]) if "cut-end" in counts else None
        return cls(
            {step: counts.get(step, 0) for step in Step}, counts.get("failed", 0), cut, counts.get("cut-crash", 0)
        )

    def owes(self, step: Step) -> bool:
        return self.owing[step] > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierView:
    """Everything that the fate of a transaction depends on."""

    txn: TxnId
    run: RunId
    rev: int
    decision: Decision | None
    number: int
    manual: bool  # some member waits for the user before it is prepared
    finalized: bool
    cursor: int
    jobs: int
    shares: Mapping[Host, HostTally]
    barrier: str = ""  # what readers are told; decides nothing
    waits: str = ""  # queued: for another run of its name to end; retry: for the time when it is tried again
    retry: int = 0  # how often its only member is tried again if it fails
    start: str = ""  # the start of Redis that it was read of

    @property
    def cut(self) -> tuple[int, int] | None:
        """The first and the last instant of all cuts, in microseconds; None where nothing was cut."""
        cuts = [share.cut for share in self.shares.values() if share.cut]
        return (min(begin for begin, _ in cuts), max(end for _, end in cuts)) if cuts else None

    @property
    def crash(self) -> int:
        """How many cuts are of no instant: what a power cut would have left."""
        return sum(share.crash for share in self.shares.values())

    def owing(self, step: Step) -> frozenset[Host]:
        return frozenset(host for host, share in self.shares.items() if share.owes(step))


@dataclass(frozen=True, slots=True)
class Do:
    """A step for these hosts: sent to them, waited for, or done by the finalizer."""

    step: Step
    hosts: frozenset[Host]


@dataclass(frozen=True, slots=True)
class Decide:
    decision: Decision


@dataclass(frozen=True, slots=True)
class AwaitUser:
    """Every member is pending, and one was submitted without auto-finalize."""


@dataclass(frozen=True, slots=True)
class AwaitTurn:
    """Nothing begins before its turn has come: that of its run, or the time of a next try."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Its member failed, nothing of it is left on its host, and it is tried again, in a transaction of its own."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Every member is concluded."""


Next = Do | Decide | AwaitUser | AwaitTurn | Retry | Finished


class Astray(Exception):
    """The members of a transaction do not add up: nothing is decided of it."""


def decide(view: BarrierView) -> Decision | None:
    """The one place where a transaction's fate is settled.

    Whatever was answered, asked for or not: nothing commits that waits for its user, or for its turn, or whose members
    are not all there.

    Raises:
        Astray: a commit is next, and the hosts' shares have not as many members as the transaction.
    """
    if any(share.failed for share in view.shares.values()):
        return Decision.ABORT
    if any(view.owing(step) for step in FORWARD) or view.waits or (view.manual and not view.finalized):
        return None
    for step in (Step.SETTLE, Step.CONCLUDE):  # every member owes these two until there is a decision
        if (members := sum(share.owing[step] for share in view.shares.values())) != view.jobs:
            raise Astray(f"{members} members of transaction {view.txn} are to {step}, and it has {view.jobs}")
    return Decision.COMMIT


def plan(view: BarrierView, silent: frozenset[Host] = frozenset()) -> Next:
    """What comes next.

    ``silent``: hosts that do not answer.  Before the decision everybody waits for them (until a deadline makes
    their members fail); after it they keep only their own members, and the rest conclude.
    """
    if view.decision is None:
        if fate := decide(view):
            return Decide(fate)
        return AwaitTurn() if view.waits else _forward(view)
    for step in AFTER[view.decision]:
        if step is Step.SETTLE:
            if hosts := view.owing(step) - silent:
                return Do(step, hosts)
        elif step is Step.CONCLUDE:
            if hosts := view.owing(step) - view.owing(Step.SETTLE):
                return Retry() if view.retry and view.decision is Decision.ABORT else Do(step, hosts)
            if hosts := view.owing(Step.SETTLE):
                return Do(Step.SETTLE, hosts)
        elif hosts := view.owing(step):
            return Do(step, hosts)
    return Finished()


def _forward(view: BarrierView) -> Next:
    """The way to the decision."""
    for step in FORWARD:
        if step is Step.PREPARE and view.manual and not view.finalized:
            return AwaitUser()
        if hosts := view.owing(step):
            return Do(step, hosts)
    raise AssertionError("nothing is owed, and nothing was decided")
