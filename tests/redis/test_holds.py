"""Pausing: at once without an attempt, by the attempt where there is one, and for several reasons at a time."""

from __future__ import annotations

import pytest
from puppets import RUN, SIZE, Fleet, dump, spec

from blockjobs.model import errors
from blockjobs.model.barriers import Step
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress

JOB = spec("j")
READY = keys.ready(JOB.host)


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(JOB)
    return fleet


@pytest.fixture
def verbs(fleet):
    return fleet.registry.verbs


def start(fleet):
    fleet.walk(RUN, Step.RUN)


def checkpoint(fleet, claim, *, quiet=False):
    return fleet.host(JOB.host).attempts.checkpoint(claim, Progress(1, SIZE), quiet=quiet)


def moves(fleet):
    return [e.fields["status"] for e in fleet.history() if e.name == "JOB_STATUS_CHANGE"]


def test_a_job_that_waits_for_a_slot_is_paused_at_once_and_keeps_no_place_in_the_queue(fleet, verbs):
    start(fleet)
    fleet.registry.hosts.ring(JOB.host, 1, lost_after_ms=1000)
    assert verbs.pause("j") == "paused"
    assert not fleet.client.exists(READY, keys.rung(JOB.host))
    view = fleet.registry.views.job("j")
    assert (view.paused, view.busy) == (True, False)  # quiescent
    assert verbs.resume("j") == "running"
    assert fleet.client.zrange(READY, 0, -1) == [b"j"]


def test_a_job_with_a_live_attempt_is_paused_when_the_attempt_says_so(fleet, verbs):
    start(fleet)
    claim = fleet.claim(JOB)
    assert verbs.pause("j") == "running"
    view = fleet.registry.views.job("j")
    assert (view.paused, view.busy) == (True, True)  # asked, still moving
    assert checkpoint(fleet, claim).pause
    assert fleet.status("j") == "running"
    assert checkpoint(fleet, claim, quiet=True).pause
    view = fleet.registry.views.job("j")
    assert (view.status, view.paused, view.busy) == ("paused", True, False)
    assert verbs.resume("j") == "paused"
    assert not checkpoint(fleet, claim).pause
    view = fleet.registry.views.job("j")
    assert (view.status, view.paused, view.busy) == ("running", False, True)
    assert not fleet.client.exists(READY)  # it goes on by itself: it needs no slot


def test_a_late_acknowledgement_of_a_pause_that_is_over_is_answered_go(fleet, verbs):
    start(fleet)
    claim = fleet.claim(JOB)
    verbs.pause("j")
    verbs.resume("j")
    assert not checkpoint(fleet, claim, quiet=True).pause
    assert fleet.status("j") == "running"
    assert "paused" not in moves(fleet)


def test_a_job_goes_on_with_the_last_of_its_holds_and_a_user_lifts_only_his_own(fleet, verbs):
    start(fleet)
    verbs.pause("j", reason="drain:alpha")
    with pytest.raises(errors.Refused, match="Can't resume a job that was not paused"):
        verbs.resume("j")
    verbs.pause("j")
    verbs.pause("j", reason="all:x", cause="maintenance")
    assert fleet.registry.views.job("j").holds == {"drain:alpha": "", "user": "", "all:x": "maintenance"}
    assert [verbs.resume("j", reason=reason) for reason in ("drain:alpha", "user")] == ["paused", "paused"]
    assert verbs.resume("j", reason="all:x") == "running"
    assert fleet.registry.views.job("j").holds == {}


def test_a_job_paused_before_it_starts_parks_there_and_does_not_run_first(fleet, verbs):
    assert verbs.pause("j") == "created"
    start(fleet)
    assert moves(fleet) == ["created", "running", "paused"]
    assert not fleet.client.exists(READY)
    assert verbs.resume("j") == "running"


def test_pause_and_resume_before_the_start_leave_no_trace(fleet, verbs):
    verbs.pause("j")
    assert verbs.resume("j") == "created"
    start(fleet)
    assert moves(fleet) == ["created", "running"]
    assert fleet.client.zrange(READY, 0, -1) == [b"j"]


def test_nobody_lifts_the_hold_that_keeps_a_created_job(fleet, verbs):
    assert fleet.registry.views.job("j").holds == {"created": ""}
    assert not fleet.registry.views.job("j").paused
    with pytest.raises(errors.Refused):
        verbs.resume("j")


@pytest.mark.parametrize("why", ["parked", "dead"])
def test_a_paused_job_whose_attempt_ends_stays_paused_and_queues_on_resume(fleet, verbs, why):
    start(fleet)
    claim = fleet.claim(JOB)
    verbs.pause("j")
    if why == "parked":
        checkpoint(fleet, claim, quiet=True)
    fleet.host(JOB.host).attempts.release(JOB.id, RUN, claim.token, claim.attempt, why=why)
    assert fleet.status("j") == "paused"
    assert not fleet.client.exists(READY)
    assert verbs.resume("j") == "running"
    assert fleet.client.zrange(READY, 0, -1) == [b"j"]


def test_a_job_resumed_while_its_attempt_parks_queues_at_once(fleet, verbs):
    start(fleet)
    claim = fleet.claim(JOB)
    verbs.pause("j")
    checkpoint(fleet, claim, quiet=True)
    verbs.resume("j")
    fleet.host(JOB.host).attempts.release(JOB.id, RUN, claim.token, claim.attempt, why="parked")
    assert fleet.status("j") == "running"
    assert fleet.client.zrange(READY, 0, -1) == [b"j"]


@pytest.mark.parametrize(("queued", "held"), [("ready", "standby"), ("running", "paused")])
def test_a_ready_job_stands_by_as_a_running_one_is_paused(fleet, verbs, queued, held):
    start(fleet)
    fleet.client.hset(keys.job(JOB.host, JOB.id), "status", queued)
    assert verbs.pause("j") == held
    assert verbs.resume("j") == queued
    claim = fleet.claim(JOB)
    verbs.pause("j")
    checkpoint(fleet, claim, quiet=True)
    assert fleet.status("j") == held
    verbs.cancel("j")
    fleet.finish(claim, errno=125, text="Operation canceled")
    assert moves(fleet)[-2:] == [queued, "aborting"]  # never from a pause


def test_errors_that_stop_a_job_are_one_hold_of_the_user_however_many(fleet, verbs):
    start(fleet)
    claim = fleet.claim(JOB)
    attempts = fleet.host(JOB.host).attempts
    for number, (text, io_status) in enumerate((("no space", "nospace"), ("broken", "failed"))):
        attempts.error(claim, number, operation="write", action="stop", io_status=io_status, text=text)
    view = fleet.registry.views.job("j")
    assert (view.holds, view.io_status) == ({"user": "no space"}, "nospace")  # the first one wins
    assert [name for name, _ in fleet.events("BLOCK_JOB_ERROR", "JOB_HELD")] == [
        "BLOCK_JOB_ERROR", "JOB_HELD", "BLOCK_JOB_ERROR",
    ]  # fmt: skip
    checkpoint(fleet, claim, quiet=True)
    verbs.resume("j")
    assert fleet.registry.views.job("j").io_status == "ok"
    assert not checkpoint(fleet, claim).pause


def test_an_error_that_is_said_once_more_as_its_answer_was_lost_stops_nothing_that_was_resumed(fleet, verbs):
    start(fleet)
    claim = fleet.claim(JOB)
    attempts = fleet.host(JOB.host).attempts

    def say(number):
        attempts.error(claim, number, operation="write", action="stop", io_status="nospace", text="no space")

    say(1)
    verbs.resume("j")
    before = dump(fleet.client)
    say(1)
    assert dump(fleet.client) == before
    say(2)
    assert fleet.registry.views.job("j").holds == {"user": "no space"}, "the next error is one more"


@pytest.mark.parametrize("action", ["report", "ignore"])
def test_an_error_that_does_not_stop_is_an_event_and_no_more(fleet, action):
    start(fleet)
    claim = fleet.claim(JOB)
    fleet.host(JOB.host).attempts.error(claim, 1, operation="read", action=action, io_status="failed", text="EIO")
    view = fleet.registry.views.job("j")
    assert (view.holds, view.io_status) == ({}, "ok")
    (event,) = (e for e in fleet.history() if e.name == "BLOCK_JOB_ERROR")
    assert event.fields == {"device": "j", "operation": "read", "action": action, "reason": "EIO"}


def test_a_cancelled_job_is_not_paused_any_more(fleet, verbs):
    start(fleet)
    claim = fleet.claim(JOB)
    verbs.pause("j")
    verbs.cancel("j")
    orders = checkpoint(fleet, claim, quiet=True)
    assert orders.cancel
    assert fleet.status("j") == "running"  # cancel overrides pause
