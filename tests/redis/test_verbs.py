"""Verbs beside each other and in the order that nobody expects: each is refused, or remembered, as in QEMU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from puppets import ALPHA, RUN, SIZE, grouped, spec

from blockjobs.model import errors
from blockjobs.model.barriers import AwaitUser, Decide, Step
from blockjobs.model.policies import Policy, RunFields
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress

JOB = spec("j", type="mirror")


@pytest.fixture
def claim(fleet):
    fleet.submit(JOB)
    fleet.walk(RUN, Step.RUN)
    return fleet.claim(JOB)


@pytest.fixture
def verbs(fleet):
    return fleet.registry.verbs


def test_what_is_cancelled_by_force_stays_so(fleet, claim, verbs):
    fleet.host(ALPHA).attempts.ready(claim, Progress(SIZE, SIZE))
    verbs.cancel("j")
    verbs.cancel("j", force=False)
    assert fleet.host(ALPHA).attempts.checkpoint(claim, Progress(SIZE, SIZE)).cancel


def test_a_job_that_its_user_paused_is_not_cancelled_softly(fleet, claim, verbs):
    verbs.pause("j")
    with pytest.raises(errors.Refused, match="is currently paused"):
        verbs.cancel("j", force=False)
    assert not fleet.registry.views.job("j").cancelled


def test_a_job_that_is_to_end_is_not_completed_and_one_is_completed_once(fleet, claim, verbs):
    fleet.host(ALPHA).attempts.ready(claim, Progress(SIZE, SIZE))
    for _ in range(2):
        verbs.complete("j")
    assert fleet.events("JOB_COMPLETING") == [("JOB_COMPLETING", "j")]
    verbs.cancel("j", force=False)
    with pytest.raises(errors.Refused, match="cannot be completed"):
        verbs.complete("j")


def test_a_job_on_standby_is_not_woken_to_complete(fleet, claim, verbs):
    attempts = fleet.host(ALPHA).attempts
    attempts.ready(claim, Progress(SIZE, SIZE))
    verbs.pause("j")
    attempts.checkpoint(claim, Progress(SIZE, SIZE), quiet=True)
    fleet.client.delete(keys.wake(ALPHA, JOB.id))
    assert verbs.complete("j") == "standby"
    assert not fleet.client.exists(keys.wake(ALPHA, JOB.id))


@pytest.mark.parametrize(
    "verb",
    [
        lambda verbs: verbs.pause("j"),
        lambda verbs: verbs.resume("j", reason="created"),
        lambda verbs: verbs.set_speed("j", 1),
        lambda verbs: verbs.complete("j"),
        lambda verbs: verbs.cancel("j"),
        lambda verbs: verbs.finalize("j"),
        lambda verbs: verbs.dismiss("j"),
    ],
    ids=["pause", "resume", "set-speed", "complete", "cancel", "finalize", "dismiss"],
)
def test_what_is_only_staged_is_no_job_to_any_verb(fleet, verbs, verb):
    fleet.registry.submit.stage(grouped(JOB), [JOB])
    before = fleet.record(JOB)
    with pytest.raises(errors.NoSuchJob):
        verb(verbs)
    assert fleet.record(JOB) == before


VERBS = {
    "pause": lambda verbs: verbs.pause("j", reason="another"),
    "resume": lambda verbs: verbs.resume("j"),
    "set-speed": lambda verbs: verbs.set_speed("j", 1),
    "complete": lambda verbs: verbs.complete("j"),
    "cancel": lambda verbs: verbs.cancel("j"),
    "finalize": lambda verbs: verbs.finalize("j"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_job_that_is_over_accepts_no_verb_but_its_dismissal(fleet, claim, verbs, verb):
    fleet.finish(claim)
    fleet.walk(RUN)
    fleet.client.hset(keys.holds(ALPHA, JOB.id), "user", "")  # what no script leaves there
    before = fleet.record(JOB)
    with pytest.raises(errors.VerbRefused, match="in state 'concluded'"):
        VERBS[verb](verbs)
    assert fleet.record(JOB) == before
    verbs.dismiss("j")


@pytest.mark.parametrize("verb", ["pause", "set-speed", "complete", "cancel"])
def test_a_verb_makes_what_was_seen_before_too_old_to_decide_on(fleet, claim, verbs, verb):
    fleet.host(ALPHA).attempts.ready(claim, Progress(SIZE, SIZE))
    before = fleet.view(RUN).rev
    VERBS[verb](verbs)
    assert fleet.view(RUN).rev > before
    if verb == "pause":
        before = fleet.view(RUN).rev
        verbs.resume("j", reason="another")
        assert fleet.view(RUN).rev > before


def test_a_hold_without_an_end_takes_that_of_an_earlier_one_of_its_name_away(fleet, claim, verbs):
    fleet.client.hset(keys.terms(), "j user", "1 1 somebody")
    verbs.pause("j")
    assert fleet.client.hgetall(keys.terms()) == {}


@pytest.mark.parametrize("manual", [True, False])
def test_nothing_is_finalized_that_waits_for_nobody_or_is_decided(fleet, manual):
    jobs = spec("a", auto_finalize=not manual), spec("b", auto_finalize=not manual)
    fleet.submit(*jobs)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*jobs)
    fleet.walk(RUN, AwaitUser if manual else Step.PREPARE)
    if manual:
        fleet.registry.verbs.cancel("a")
        assert isinstance(fleet.advance(RUN), Decide)
    assert fleet.status("b") == "pending"
    with pytest.raises(errors.VerbRefused):
        fleet.registry.verbs.finalize("b")


def test_a_job_that_is_tried_again_is_finalized_in_the_transaction_that_it_is_in_now(fleet):
    job = spec(f"{RUN}.a", txn=f"{RUN}.each.a", auto_finalize=False)
    fields = RunFields(policies={"each": Policy(grouped=False, retry=1, retry_wait=0)})
    fleet.registry.submit.submit(replace(grouped(job), grouped=False, fields=fields))
    fleet.walk(job.transaction, Step.RUN)
    fleet.finish(fleet.claim(job), errno=5, text="EIO")
    before = fleet.registry.views.place(job.id)
    now = fleet.again(job.transaction)
    fleet.registry.retries.begin(fleet.registry.clock.now())
    fleet.walk(now, Step.RUN)
    fleet.copy(job)
    fleet.walk(now, AwaitUser)
    verbs, places = fleet.registry.verbs, iter([before])  # as who looked before
    known, verbs._views.place = verbs._views.place, lambda job_id: next(places, None) or known(job_id)
    verbs.finalize(job.id)
    assert fleet.view(now).finalized


def test_a_transaction_that_is_finalized_is_looked_at(fleet):
    job = spec("a", auto_finalize=False)
    fleet.submit(job)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(job)
    fleet.walk(RUN, AwaitUser)
    for due in fleet.due():
        fleet.registry.transactions.close(due, fleet.view(RUN), finished=False)
    fleet.registry.verbs.finalize("a")
    assert [due.txn for due in fleet.due()] == [RUN]


def test_a_reason_that_is_not_in_force_holds_nobody_and_one_that_is_lets_nobody_go(fleet, claim):
    holds = fleet.registry.holds
    assert holds.hold("all:x") == 0
    assert fleet.registry.views.job("j").holds == {}
    holds.begin("all:x")
    assert holds.hold("all:x") == 1
    assert holds._lift_once("all:x") == 0, "as who lifted it before it was in force again"
    assert "all:x" in fleet.registry.views.job("j").holds


def test_a_reason_of_many_is_lifted_from_those_alone_that_it_holds(fleet, claim):
    holds = fleet.registry.holds
    holds.begin("all:x")
    assert holds.hold("all:x") == 1
    fleet.client.hset(keys.lifting(), "all:x", fleet.client.hget(keys.holding(), "all:x"))
    assert [holds._lift_once("all:x") for _ in range(2)] == [1, 0]
    assert fleet.events("JOB_UNHELD") == [("JOB_UNHELD", "j")]


def test_a_job_on_standby_is_ready_before_it_aborts(fleet, claim, verbs):
    attempts = fleet.host(ALPHA).attempts
    attempts.ready(claim, Progress(SIZE, SIZE))
    verbs.pause("j")
    attempts.release("j", RUN, claim.token, claim.attempt, why="parked")
    assert fleet.status("j") == "standby"
    assert verbs.cancel("j") == "aborting"
    assert fleet.replayed() == {"j": "aborting"}
