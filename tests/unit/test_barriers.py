"""The way of a transaction, with everybody dying at every point: one decision, never a wrong one, always an end.

The transaction here is a few values in memory.  A finalizer looks, decides on what it saw and does a step; a host
answers for one member at a time; either may stop anywhere, and whoever comes next looks anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockjobs.model.barriers import (
    AFTER,
    BY_HOSTS,
    FORWARD,
    Astray,
    AwaitTurn,
    AwaitUser,
    BarrierView,
    Decide,
    Decision,
    Do,
    Finished,
    HostTally,
    Retry,
    Step,
    decide_transaction,
    next_action,
    preceding_steps,
)
from blockjobs.model.ids import Host, RunId, TxnId

A, B, C = Host("a"), Host("b"), Host("c")


@dataclass
class Member:
    host: Host
    done: set[Step] = field(default_factory=set)
    failed: bool = False


@dataclass
class Transaction:
    """What Redis would hold, with the effects that the scripts have."""

    members: list[Member]
    manual: bool = False
    finalized: bool = False
    rev: int = 0
    decision: Decision | None = None
    decisions: list[Decision] = field(default_factory=list)
    at_decision: list[Member] = field(default_factory=list)

    def view(self) -> BarrierView:
        shares = {}
        for host in {member.host for member in self.members}:
            mine = [member for member in self.members if member.host == host]
            owing = Counter(step for member in mine for step in Step if step not in member.done)
            shares[host] = HostTally.of({**owing, "failed": sum(member.failed for member in mine)})
        return BarrierView(
            txn=TxnId("t"), run=RunId("r"), rev=self.rev, decision=self.decision, number=0, manual=self.manual,
            finalized=self.finalized, cursor=-1, jobs=len(self.members), shares=shares,
        )  # fmt: skip

    def settle(self, view: BarrierView, decision: Decision) -> None:
        if self.decision is None and view.rev == self.rev:
            self.decision = decision
            self.decisions.append(decision)

    def carry_out(self, step: Step, member: Member, *, failing: bool = False) -> None:
        """One member takes a step, if it is at that point; a second time is nothing."""
        if step in member.done:
            return
        if step is Step.CONCLUDE:
            assert Step.SETTLE in member.done, "concluded before it was settled"
        if step is Step.SETTLE:
            assert self.decision, "settled before it was decided"
        if step in FORWARD:
            at = FORWARD.index(step)
            if member.failed or not member.done.issuperset(FORWARD[:at]):
                return
            if at:  # nobody meets a barrier before everybody has passed the one before
                assert all(FORWARD[at - 1] in each.done for each in self.members), step
            if failing:
                member.failed = True
                return
        member.done.add(step)

    def cancel(self, member: Member) -> bool:
        if self.decision or member.failed:
            return False
        self.rev += 1
        member.failed = True
        return True


def shape(hosts: tuple[Host, ...], **options: bool) -> Transaction:
    return Transaction([Member(host) for host in hosts], **options)


def turn(txn: Transaction, *, view: BarrierView | None = None, silent: frozenset[Host] = frozenset(),
         stop_after: int = 99, failing: frozenset[tuple[int, Step]] = frozenset()) -> int:  # fmt: skip
    """One turn of a finalizer and those it rings for, cut behind ``stop_after`` effects; how many there were."""
    match next_action(view or txn.view(), silent):
        case Decide(decision):
            if stop_after:
                txn.settle(view or txn.view(), decision)
            return 1
        case AwaitUser():
            txn.rev += 1
            txn.finalized = True
            return 1
        case Do(step, hosts):
            away = silent if step in BY_HOSTS or step is Step.RUN else frozenset()
            todo = [n for n, m in enumerate(txn.members) if m.host in hosts - away and step not in m.done]
            for n in todo[:stop_after]:
                txn.carry_out(step, txn.members[n], failing=(n, step) in failing)
            return min(len(todo), stop_after)
        case Finished():
            return 0


def turns(txn: Transaction, until: Callable[[], bool], **options) -> None:
    """Turn after turn until this is so; it has to be so soon."""
    for _ in range(60):
        if until():
            return
        turn(txn, **options)
    raise AssertionError("it never comes")


def run_out(txn: Transaction, limit: int = 60, **options) -> None:
    for _ in range(limit):
        if isinstance(next_action(txn.view()), Finished):
            break
        turn(txn, **options)
    check_end(txn)


def check_end(txn: Transaction) -> None:
    assert isinstance(next_action(txn.view()), Finished)
    assert txn.decisions == [txn.decision]
    assert all(Step.CONCLUDE in member.done for member in txn.members)
    if txn.decision is Decision.COMMIT:
        assert not any(member.failed for member in txn.members)
        assert all(member.done.issuperset(FORWARD) for member in txn.members)
    else:
        assert any(member.failed for member in txn.members)
        assert all(Step.STOP in member.done for member in txn.members)


SHAPES = [(A,), (A, A), (A, B), (A, B, A, C)]
ids = "".join


# --- the road -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", SHAPES, ids=ids)
def test_the_barriers_come_in_their_order_and_then_the_commit(hosts):
    txn = shape(hosts)
    seen = []
    while not isinstance(what := next_action(txn.view()), Finished):
        seen.append(what.decision if isinstance(what, Decide) else what.step)
        turn(txn)
    assert seen == [*FORWARD, Decision.COMMIT, *AFTER[Decision.COMMIT]]


def test_the_user_is_waited_for_between_pending_and_prepare_and_nowhere_else():
    txn = shape((A, B), manual=True)
    seen = []
    while not isinstance(next_action(txn.view()), AwaitUser):
        seen.append(next_action(txn.view()).step)
        turn(txn)
    assert seen == list(FORWARD[:-1])
    assert next_action(txn.view()) == AwaitUser()  # and again
    turn(txn)
    assert next_action(txn.view()) == Do(Step.PREPARE, frozenset({A, B}))


def test_a_barrier_is_owed_by_the_hosts_that_have_members_left_before_it():
    txn = shape((A, B, B))
    txn.carry_out(Step.OPEN, txn.members[0])
    txn.carry_out(Step.OPEN, txn.members[1])
    assert next_action(txn.view()) == Do(Step.OPEN, frozenset({B}))


def test_a_member_that_waits_for_the_user_can_still_be_cancelled():
    txn = shape((A, B), manual=True)
    turns(txn, lambda: next_action(txn.view()) == AwaitUser())
    txn.cancel(txn.members[1])
    assert next_action(txn.view()) == Decide(Decision.ABORT)


@pytest.mark.parametrize("retry", [0, 2])
def test_a_member_that_failed_is_tried_again_once_nothing_of_it_is_left_on_its_host(retry):
    txn = shape((A,))
    txn.cancel(txn.members[0])
    seen = []
    while not isinstance(what := next_action(replace(txn.view(), retry=retry)), Retry | Finished):
        seen.append(what)
        turn(txn)
    assert isinstance(what, Retry if retry else Finished)
    assert (Do(Step.CONCLUDE, frozenset({A})) in seen) is not bool(retry)
    assert Do(Step.SETTLE, frozenset({A})) in seen
    assert next_action(replace(txn.view(), retry=retry), frozenset({A})) == what


def test_what_commits_is_not_tried_again():
    txn = shape((A,))
    while not isinstance(what := next_action(replace(txn.view(), retry=2)), Finished):
        assert not isinstance(what, Retry)
        turn(txn)


@pytest.mark.parametrize("why", ["queued", "retry"])
def test_nothing_begins_before_its_turn_and_what_was_cancelled_needs_none(why):
    txn = shape((A, B))
    assert next_action(replace(txn.view(), waits=why)) == AwaitTurn()
    txn.cancel(txn.members[1])
    assert next_action(replace(txn.view(), waits=why)) == Decide(Decision.ABORT)


@pytest.mark.parametrize("step", FORWARD)
def test_nothing_is_decided_while_somebody_owes_a_step_and_nobody_failed(step):
    txn = shape((A, B))
    turns(txn, lambda: next_action(txn.view()) == Do(step, frozenset({A, B})))
    txn.carry_out(step, txn.members[0])
    assert decide_transaction(txn.view()) is None


# --- every interrupted prefix ---------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", SHAPES, ids=ids)
@pytest.mark.parametrize("manual", [False, True], ids=["auto", "manual"])
def test_whoever_dies_behind_any_effect_the_next_one_commits_all_the_same(hosts, manual):
    for cut in range(len(hosts) * 8 + 2):
        txn = shape(hosts, manual=manual)
        left = cut
        while left > 0 and (did := turn(txn, stop_after=left)):
            left -= did
        run_out(txn)
        assert txn.decision is Decision.COMMIT


@pytest.mark.parametrize("hosts", SHAPES, ids=ids)
@pytest.mark.parametrize("step", FORWARD)
def test_a_member_that_fails_at_any_step_aborts_all_whoever_dies_when(hosts, step):
    for victim, cut in product(range(len(hosts)), range(len(hosts) * 8 + 2)):
        failing = frozenset({(victim, step)})
        txn = shape(hosts)
        left = cut
        while left > 0 and (did := turn(txn, stop_after=left, failing=failing)):
            left -= did
        run_out(txn, failing=failing)
        assert txn.decision is Decision.ABORT


@pytest.mark.parametrize("hosts", SHAPES, ids=ids)
def test_a_cancel_behind_any_effect_is_refused_or_aborts_all(hosts):
    for victim, cut in product(range(len(hosts)), range(len(hosts) * 8 + 2)):
        txn = shape(hosts)
        left = cut
        while left > 0 and (did := turn(txn, stop_after=left)):
            left -= did
        granted = txn.cancel(txn.members[victim])
        run_out(txn)
        assert txn.decision is (Decision.ABORT if granted else Decision.COMMIT)


def test_a_finalizer_that_slept_with_an_old_view_does_nothing_wrong():
    """Two finalizers: the second one acts on every view that the first one has passed, after every later one."""
    length = 20
    for slept, woke in product(range(length), range(length)):
        for failing in (frozenset(), frozenset({(1, Step.RUN)})):
            txn = shape((A, B, A))
            for n in range(slept + woke + 1):
                if n == slept:
                    old = txn.view()
                turn(txn, failing=failing)
            turn(txn, view=old, failing=failing)
            run_out(txn, failing=failing)
            assert txn.decision is (Decision.ABORT if failing else Decision.COMMIT)


def test_a_commit_decided_on_a_view_older_than_a_cancel_is_not_written():
    txn = shape((A, B))
    turns(txn, lambda: next_action(txn.view()) == Decide(Decision.COMMIT))
    old = txn.view()
    assert txn.cancel(txn.members[0])
    turn(txn, view=old)
    assert txn.decision is None
    run_out(txn)
    assert txn.decision is Decision.ABORT


# --- hosts that are away --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Step.OPEN, Step.CUT, Step.RUN, Step.PREPARE])
def test_before_the_decision_everybody_waits_for_a_silent_host(step):
    txn = shape((A, B))
    turns(txn, lambda: next_action(txn.view()) == Do(step, frozenset({A, B})))
    silent = frozenset({B})
    turn(txn, silent=silent)
    assert next_action(txn.view(), silent) == Do(step, silent)
    assert turn(txn, silent=silent) == 0
    txn.carry_out(step, txn.members[1], failing=True)  # its deadline
    run_out(txn)
    assert txn.decision is Decision.ABORT


@pytest.mark.parametrize("fate", Decision)
def test_after_the_decision_a_silent_host_keeps_only_its_own_members(fate):
    txn = shape((A, B, A, C))
    failing = frozenset({(0, Step.RUN)}) if fate is Decision.ABORT else frozenset()
    turns(txn, lambda: txn.decision is not None, failing=failing)
    assert txn.decision is fate
    silent = frozenset({B})
    turns(txn, lambda: next_action(txn.view(), silent) == Do(Step.SETTLE, silent), silent=silent)
    assert [Step.CONCLUDE in member.done for member in txn.members] == [True, False, True, True]
    assert next_action(txn.view()) == Do(Step.SETTLE, silent)  # it is asked again when it is back
    run_out(txn)


def test_hosts_that_are_all_silent_are_waited_for():
    txn = shape((A, B))
    turns(txn, lambda: txn.decision is not None)
    assert next_action(txn.view(), frozenset({A, B})) == Do(Step.SETTLE, frozenset({A, B}))


@settings(max_examples=300)
@given(
    hosts=st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=5).map(tuple),
    manual=st.booleans(),
    failing=st.frozensets(st.tuples(st.integers(0, 4), st.sampled_from(FORWARD)), max_size=3),
    moments=st.lists(
        st.tuples(
            st.sampled_from(["turn", "look", "wake", "cancel"]),
            st.integers(0, 4),
            st.frozensets(st.sampled_from([A, B, C]), max_size=2),
        ),
        max_size=60,
    ),
)
def test_any_finalizers_cancels_failures_and_absences_in_any_order(hosts, manual, failing, moments):
    txn = shape(hosts, manual=manual)
    views = [txn.view()]
    granted = False
    for what, n, silent in moments:
        match what:
            case "look":
                views.append(txn.view())
            case "turn":
                turn(txn, silent=silent, stop_after=n, failing=failing)
            case "wake":
                turn(txn, view=views[n % len(views)], silent=silent, stop_after=n, failing=failing)
            case "cancel":
                granted |= txn.cancel(txn.members[n % len(hosts)])
    run_out(txn, limit=200, failing=failing)
    assert txn.decision is Decision.ABORT or not granted


# --- what the scripts are told --------------------------------------------------------------------------


def test_each_step_says_what_may_precede_it():
    assert {step: preceding_steps(step) for step in ("open", "cut", "prepare", "settle")} == {
        "open": ",,", "cut": ",open,", "prepare": ",run,", "settle": ",,open,cut,run,prepare,",
    }  # fmt: skip
    with pytest.raises(KeyError):
        preceding_steps(Step.RUN)  # answered by attempts, not by hosts


def test_a_share_counts_what_redis_left_out_as_nothing():
    share = HostTally.of({"open": 2, "failed": 1})
    assert [step for step in Step if share.owes(step)] == [Step.OPEN]
    assert share.failed == 1


# --- what was answered unasked ------------------------------------------------------------------------------


def prepared(**options) -> Transaction:
    """A transaction of two hosts whose members have all passed every barrier before the decision."""
    txn = shape((A, B), **options)
    for member in txn.members:
        member.done.update(FORWARD)
    return txn


def test_a_prepare_that_nobody_asked_for_commits_nothing_that_waits_for_its_user():
    txn = prepared(manual=True)
    assert decide_transaction(txn.view()) is None
    assert next_action(txn.view()) == AwaitUser()
    txn.finalized = True
    assert next_action(txn.view()) == Decide(Decision.COMMIT)


def test_answers_that_nobody_asked_for_commit_nothing_whose_turn_has_not_come():
    view = replace(prepared().view(), waits="queued")
    assert next_action(view) == AwaitTurn()


@pytest.mark.parametrize("step", [Step.SETTLE, Step.CONCLUDE])
@pytest.mark.parametrize("change", [-1, 1])
def test_nothing_commits_whose_members_do_not_add_up(step, change):
    view = prepared().view()
    share = view.shares[A]
    odd = replace(share, owing={**share.owing, step: share.owing[step] + change})
    with pytest.raises(Astray, match=f"are to {step}, and it has 2"):
        next_action(replace(view, shares={**view.shares, A: odd}))
    with pytest.raises(Astray):
        next_action(replace(view, shares={A: share}))
    failed = replace(odd, failed=1)
    assert next_action(replace(view, shares={**view.shares, A: failed})) == Decide(Decision.ABORT)
