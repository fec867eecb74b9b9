"""The way of a transaction: its next barrier, the hosts that owe the barrier, and the time of the decision.

Pure: a view goes in, the next action comes out.  All members pass one barrier before any member meets the next.

    open -> cut -> start -> run -> pend -> (finalize, owed by the user) -> prepare
    DECISION -> stop (of an abort) -> settle -> conclude

``open``, ``cut``, ``prepare`` and ``settle`` are answered by the hosts; ``run`` by the attempts; the finalizer
does ``start``, ``pend``, ``stop`` (of an abort) and ``conclude``.
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

# The steps that a member may have passed last when it answers a step.  An abort may send a settle after any step.
_BEFORE: Final = {
    Step.OPEN:    ("",),
    Step.CUT:     (Step.OPEN,),
    Step.PREPARE: (Step.RUN,),
    Step.SETTLE:  ("", Step.OPEN, Step.CUT, Step.RUN, Step.PREPARE),
}  # fmt: skip


def preceding_steps(step: str) -> str:
    """The steps that may precede ``step``, in the form of the scripts: with a comma before, between and behind."""
    return f",{','.join(_BEFORE[Step(step)])},"


@dataclass(frozen=True, slots=True)
class HostTally:
    """One host's part of a transaction: how many members owe each step, and how many members failed."""

    owing: Mapping[Step, int]
    failed: int = 0
    cut: tuple[int, int] | None = None  # the first and the last instant of the cuts, in microseconds
    crash: int = 0  # number of cuts without a single instant

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
    """The facts that decide the next step of a transaction."""

    txn: TxnId
    run: RunId
    rev: int
    decision: Decision | None
    number: int
    manual: bool  # at least one member waits for the user before PREPARE
    finalized: bool
    cursor: int
    jobs: int
    shares: Mapping[Host, HostTally]
    barrier: str = ""  # for display; decides nothing
    waits: str = ""  # queued: another run of the same name is active; retry: the time of the retry has not come
    retry: int = 0  # remaining retries of its only member
    start: str = ""  # the start of Redis during which the view was read

    @property
    def cut(self) -> tuple[int, int] | None:
        """The first and the last instant of the cuts, in microseconds; None without cuts."""
        cuts = [share.cut for share in self.shares.values() if share.cut]
        return (min(begin for begin, _ in cuts), max(end for _, end in cuts)) if cuts else None

    @property
    def crash(self) -> int:
        """The number of cuts without a single instant, each in the state after a power cut."""
        return sum(share.crash for share in self.shares.values())

    def owing(self, step: Step) -> frozenset[Host]:
        return frozenset(host for host, share in self.shares.items() if share.owes(step))


@dataclass(frozen=True, slots=True)
class Do:
    """A step for these hosts: sent to the hosts, awaited from their attempts, or done by the finalizer."""

    step: Step
    hosts: frozenset[Host]


@dataclass(frozen=True, slots=True)
class Decide:
    decision: Decision


@dataclass(frozen=True, slots=True)
class AwaitUser:
    """Every member is pending, and at least one was submitted without auto-finalize."""


@dataclass(frozen=True, slots=True)
class AwaitTurn:
    """The transaction waits for the turn of its run, or for the time of a retry."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The only member failed and is cleaned up on its host: retry the job in a new transaction."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Every member is concluded."""


Next = Do | Decide | AwaitUser | AwaitTurn | Retry | Finished


class Astray(Exception):
    """The members of a transaction do not add up: the transaction is not decided."""


def decide_transaction(view: BarrierView) -> Decision | None:
    """Decide the fate of a transaction; no other function does.

    Regardless of answers, a transaction does not commit while members are missing, or before its user finalizes and its
    turn comes.

    Raises:
        Astray: a commit is next, and the number of the hosts' members differs from the transaction's number of jobs.
    """
    if any(share.failed for share in view.shares.values()):
        return Decision.ABORT
    if any(view.owing(step) for step in FORWARD) or view.waits or (view.manual and not view.finalized):
        return None
    for step in (Step.SETTLE, Step.CONCLUDE):  # every member owes both steps until the decision
        if (members := sum(share.owing[step] for share in view.shares.values())) != view.jobs:
            raise Astray(f"{members} members of transaction {view.txn} are to {step}, and it has {view.jobs}")
    return Decision.COMMIT


def next_action(view: BarrierView, silent: frozenset[Host] = frozenset()) -> Next:
    """The next action for a transaction.

    ``silent``: hosts without an answer.  Before the decision every member waits for silent hosts, until a deadline
    makes the members of a silent host fail.  After the decision a silent host delays only its own members, and the rest
    conclude.
    """
    if view.decision is None:
        if fate := decide_transaction(view):
            return Decide(fate)
        return AwaitTurn() if view.waits else _next_forward_step(view)
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


def _next_forward_step(view: BarrierView) -> Next:
    """The next step before the decision."""
    for step in FORWARD:
        if step is Step.PREPARE and view.manual and not view.finalized:
            return AwaitUser()
        if hosts := view.owing(step):
            return Do(step, hosts)
    raise AssertionError("nothing is owed, and nothing was decided")
