"""Whoever was held up goes on with what it saw before; and steps that some members are past, or short of."""

from __future__ import annotations

import pytest
from puppets import ALPHA, BETA, RUN, dump, spec

from blockjobs.model.barriers import Decision, Step
from blockjobs.registry import keys
from blockjobs.registry.answers import Answer
from blockjobs.registry.submit import BATCH, split_batches

A, B, C = spec("a"), spec("b", host=BETA), spec("c")
GROUP = (A, B, C)


@pytest.fixture
def opening(fleet):
    """A group whose hosts are asked to open."""
    fleet.submit(*GROUP)
    fleet.walk(RUN, Step.OPEN)
    return fleet


def clear_due(fleet):
    for due in fleet.due():
        fleet.registry.transactions.close(due, fleet.view(RUN), finished=False)


STEPS = {
    Step.START: lambda fate, view: fate.start(view, ALPHA),
    Step.PEND: lambda fate, view: fate.pend(view, ALPHA),
    Step.OPEN: lambda fate, view: fate.fail(view, ALPHA, Step.OPEN, 110, "it is late"),
}


@pytest.mark.parametrize("step", STEPS)
def test_no_step_before_the_decision_is_taken_behind_it(opening, step):
    if step is Step.PEND:
        opening.walk(RUN, Step.RUN)
        opening.copy(*GROUP)
    opening.walk(RUN, step)
    view = opening.view(RUN)
    assert opening.registry.transactions.settle(view, Decision.ABORT, "another finalizer was faster")
    before = dump(opening.client)
    STEPS[step](opening.registry.transactions, view)
    assert dump(opening.client) == before


def test_a_member_that_was_cancelled_meanwhile_is_not_started_and_the_others_are(opening):
    opening.walk(RUN, Step.START)
    view = opening.view(RUN)
    opening.registry.verbs.cancel("a")
    opening.registry.transactions.start(view, ALPHA)
    assert [opening.status(job.id) for job in GROUP] == ["aborting", "created", "running"]
    opening.walk(RUN)


def test_a_member_that_was_cancelled_meanwhile_takes_no_locks_and_keeps_its_error(opening):
    view = opening.view(RUN)
    opening.registry.verbs.cancel("a")
    clear_due(opening)
    opening.answer(ALPHA, RUN, Step.OPEN)
    assert opening.record(A)["passed"] == ""
    assert opening.client.hget(keys.locks(ALPHA), "w:w-a") is None
    assert opening.client.hget(keys.locks(ALPHA), "w:w-c") == b"c"
    opening.registry.transactions.fail(view, ALPHA, Step.OPEN, 110, "it is late")
    assert opening.registry.views.job("a").error == "Operation canceled"
    assert sum(share.failed for share in opening.view(RUN).shares.values()) == 1


def test_a_member_that_could_not_be_opened_takes_no_locks_and_aborts(opening):
    opening.host(ALPHA).answers.answer(RUN, Step.OPEN, [Answer(A.id, 5, "EIO", reads="r-a", writes="w-a")])
    assert not opening.client.exists(keys.locks(ALPHA))
    assert opening.status("a") == "aborting"


def test_a_host_that_is_late_makes_its_transaction_due(opening):
    clear_due(opening)
    opening.registry.transactions.fail(opening.view(RUN), BETA, Step.OPEN, 110, "it is late")
    assert [due.txn for due in opening.due()] == [RUN]


def test_a_member_that_fails_makes_its_transaction_due_although_others_of_its_host_owe_their_answer(opening):
    clear_due(opening)
    opening.host(ALPHA).answers.answer(RUN, Step.OPEN, [Answer(C.id, 5, "EIO")])
    assert [due.txn for due in opening.due()] == [RUN]
    assert opening.view(RUN).shares[ALPHA].owes(Step.OPEN)


def test_a_member_that_is_copied_is_told_to_stop_and_aborts_when_its_attempt_has_ended(opening):
    opening.walk(RUN, Step.RUN)
    claim = opening.claim(C)
    opening.finish(opening.claim(A), errno=5, text="EIO")
    opening.walk(RUN, Step.SETTLE)
    assert opening.status("c") == "running"
    assert opening.host(ALPHA).attempts.wait(C.id, 0.1)
    opening.advance(RUN)
    assert opening.record(C)["passed"] != "settle"
    opening.finish(claim)
    assert opening.status("c") == "aborting"
    opening.walk(RUN)


def test_a_member_that_was_rung_for_is_not_when_its_transaction_aborts(opening):
    opening.walk(RUN, Step.RUN)
    assert opening.registry.hosts.ring(ALPHA, 2, lost_after_ms=1000) == ["a", "c"]
    opening.finish(opening.claim(A), errno=5, text="EIO")
    opening.walk(RUN)
    assert not opening.client.exists(keys.rung(ALPHA), keys.ready(ALPHA))


def test_nobody_is_concluded_who_has_not_settled(opening):
    opening.walk(RUN, Step.RUN)
    opening.copy(*GROUP)
    opening.walk(RUN, Step.SETTLE)
    opening.answer(ALPHA, RUN, Step.SETTLE)
    opening.registry.transactions.conclude(opening.view(RUN), frozenset({ALPHA, BETA}))
    assert [opening.status(job.id) for job in GROUP] == ["concluded", "pending", "concluded"]
    opening.walk(RUN)


def test_nobody_is_left_out_where_a_finalizer_died_over_the_members_of_one_host(fleet):
    """It concludes in batches, those of a host that has settled before those of one that has not."""
    jobs = [*(spec(f"a{n}") for n in range(BATCH + 1)), spec("b", host=BETA)]
    fleet.submit(*jobs)
    fleet.registry.verbs.cancel("b")
    fleet.walk(RUN, Step.SETTLE)
    fleet.answer(ALPHA, RUN, Step.SETTLE)
    view = fleet.view(RUN)
    (half, _) = split_batches(fleet.registry.transactions.members(ALPHA, RUN))
    rows = [f"{ALPHA} {job}" for job in reversed(half)]
    order = fleet.client.lrange(keys.order(RUN), 0, -1)
    fleet.client.delete(keys.order(RUN))
    fleet.client.rpush(keys.order(RUN), *rows)  # as far as the first finalizer came
    fleet.registry.transactions.conclude(view, frozenset({ALPHA}))
    fleet.client.delete(keys.order(RUN))
    fleet.client.rpush(keys.order(RUN), *order)
    fleet.walk(RUN)
    assert fleet.registry.views.run(RUN).open == 0


def test_what_a_host_has_opened_is_owed_no_longer(opening):
    door = opening.host(ALPHA).answers
    assert door.owed_of([A.id, C.id]) == {A.id, C.id}
    opening.answer(ALPHA, RUN, Step.OPEN)
    assert door.owed_of([A.id, C.id]) == frozenset()


def test_a_source_is_read_until_the_last_one_that_reads_it_has_ended(fleet):
    other = spec("x", run="other-20261122T000000Z", source=A.source)
    fleet.submit(A)
    fleet.submit(other)
    fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    assert fleet.registry.nodes.readers(A.source) == 1
    fleet.registry.verbs.cancel("x")
    fleet.walk(other.transaction)
    assert fleet.registry.nodes.readers(A.source) == 0


def test_of_a_job_that_ended_before_it_began_no_hold_and_no_knock_is_left(fleet):
    fleet.submit(*GROUP)
    fleet.registry.verbs.cancel("a")
    fleet.host(ALPHA).attempts.knock(A.id)
    fleet.walk(RUN)
    assert not fleet.client.exists(keys.holds(ALPHA, A.id), keys.wake(ALPHA, A.id))
