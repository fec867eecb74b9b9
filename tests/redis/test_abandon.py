"""A host that is given up keeps nobody waiting: its members end, and say why."""

from __future__ import annotations

import pytest
from puppets import ALPHA, BETA, RUN, Fleet, spec

from blockjobs.model import errors
from blockjobs.model.barriers import Decision, Finished, Step
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress

HERE, THERE, TOO = spec("here"), spec("there", host=BETA), spec("too", host=BETA)
GONE = "host beta was abandoned"


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(HERE, THERE, TOO)
    return fleet


def abandon(fleet):
    return fleet.registry.transactions.abandon(BETA)


def over(fleet):
    """What became of every job, once all is over; and nothing is left that would hold anybody up."""
    fleet.walk(RUN)
    fleet.close(RUN)
    assert not fleet.client.exists(keys.texts(), keys.locks(BETA), keys.attempts(BETA), keys.ready(BETA))
    assert not fleet.registry.views.unfinished()
    views = (fleet.registry.views.job(job) for job in ("here", "there", "too"))
    return {view.id: (str(view.status), view.ret, view.error) for view in views}


@pytest.mark.parametrize("barrier", [Step.OPEN, Step.CUT, Step.RUN])
def test_before_the_decision_everybody_aborts(fleet, barrier):
    fleet.walk(RUN, barrier)
    fleet.silent = frozenset({BETA})
    assert abandon(fleet) == 2
    assert abandon(fleet) == 0, "again changes nothing"
    assert over(fleet) == {
        "here": ("concluded", -125, "Operation canceled"),
        "there": ("concluded", -112, GONE),
        "too": ("concluded", -112, GONE),
    }
    assert fleet.view(RUN).decision is Decision.ABORT


def test_an_attempt_that_lives_on_there_has_lost_its_lease(fleet):
    fleet.walk(RUN, Step.RUN)
    claim = fleet.claim(THERE)
    fleet.registry.verbs.pause("too")
    fleet.copy(HERE)
    assert abandon(fleet) == 2
    with pytest.raises(errors.LeaseLost):
        fleet.host(BETA).attempts.checkpoint(claim, Progress(1, 1))
    with pytest.raises(errors.LeaseLost):
        fleet.finish(claim)
    assert ("ATTEMPT_RELEASED", "there") in fleet.events("ATTEMPT_RELEASED")
    assert {state for state, _, _ in over(fleet).values()} == {"concluded"}


def test_after_the_decision_the_others_are_committed_and_its_own_say_what_is_not_known(fleet):
    fleet.walk(RUN, Step.RUN)
    fleet.copy(HERE, THERE, TOO)
    fleet.walk(RUN, Step.SETTLE)
    fleet.silent = frozenset({BETA})
    fleet.answer(ALPHA, RUN, Step.SETTLE)
    assert abandon(fleet) == 2
    told = over(fleet)
    assert told["here"] == ("concluded", 0, "")
    assert told["there"][:2] == ("concluded", -112)
    assert told["there"][2] == f"{GONE}: it was decided to commit, and whether it published the target is unknown"
    assert fleet.registry.views.run(RUN).failed == 2


def test_after_the_decision_to_abort_a_job_keeps_the_error_that_it_failed_with(fleet):
    fleet.walk(RUN, Step.RUN)
    fleet.finish(fleet.claim(THERE), errno=5, text="broken")
    fleet.walk(RUN, Step.SETTLE)
    fleet.silent = frozenset({BETA})
    assert abandon(fleet) == 2
    assert over(fleet)["there"] == ("concluded", -5, "broken")
    assert isinstance(fleet.next(RUN), Finished)


def test_the_host_finds_what_it_has_to_tidy_up_if_it_is_back(fleet):
    fleet.walk(RUN, Step.RUN)
    abandon(fleet)
    door = fleet.host(BETA).answers
    assert door.abandoned() == [RUN]
    over(fleet)
    assert door.decision(RUN)[0] == Decision.ABORT
    door.settled(RUN)
    assert door.abandoned() == fleet.host(ALPHA).answers.abandoned() == []


def test_nothing_of_a_host_that_is_given_up_is_left_to_be_owed_or_rung_for(fleet):
    fleet.walk(RUN, Step.RUN)
    fleet.registry.hosts.ring(BETA, 2, lost_after_ms=1000)
    for due in fleet.due():
        fleet.registry.transactions.close(due, fleet.view(RUN), finished=False)
    abandon(fleet)
    assert [due.txn for due in fleet.due()] == [RUN]
    assert not fleet.client.exists(keys.rung(BETA))


def test_what_it_could_not_settle_is_shown_no_longer_and_it_is_asked_to_stop_once(fleet):
    fleet.walk(RUN, Step.RUN)
    fleet.finish(fleet.claim(HERE), errno=5, text="broken")
    fleet.sick = {(Step.SETTLE, "there"): (17, "in the way"), (Step.SETTLE, "too"): (17, "in the way")}
    fleet.walk(RUN, Step.SETTLE)
    fleet.advance(RUN)
    assert fleet.registry.views.job("there").unsettled == "in the way"
    abandon(fleet)
    assert fleet.registry.views.job("there").unsettled == ""
    assert fleet.view(RUN).shares[BETA].owing[Step.STOP] == 0


def test_a_decision_on_a_view_from_before_is_refused(fleet):
    fleet.walk(RUN, Step.RUN)
    fleet.copy(HERE, THERE, TOO)
    fleet.walk(RUN, Step.PREPARE)
    fleet.advance(RUN)
    view = fleet.view(RUN)
    abandon(fleet)
    assert not fleet.registry.transactions.settle(view, Decision.COMMIT, "because")
    assert over(fleet)["here"] == ("concluded", -125, "Operation canceled")
