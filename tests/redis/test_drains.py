"""A drain holds what a host or a volume has to do now, and what starts later; an attempt under it ends itself."""

from __future__ import annotations

import pytest
from puppets import ALPHA, BETA, RUN, SIZE, Fleet, spec

from blockjobs.model import errors
from blockjobs.model.barriers import Step
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress
from blockjobs.registry.holds import DRAIN

LATER = "later-20261122T110000Z"
HERE, ALSO, THERE = spec("here"), spec("also"), spec("there", host=BETA)


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(HERE, ALSO, THERE)
    fleet.walk(RUN, Step.RUN)
    return fleet


@pytest.fixture
def holds(fleet):
    return fleet.registry.holds


def drain(holds, what, cause=""):
    holds.begin(DRAIN + what, cause=cause)
    return holds.hold(DRAIN + what, cause, holds.drained_by(what))


def held(fleet, job):
    return fleet.registry.views.job(job).holds


def test_a_drained_host_is_not_rung_and_its_jobs_are_held(fleet, holds):
    holds.begin(DRAIN + ALPHA)
    assert fleet.registry.hosts.ring(ALPHA, 2, lost_after_ms=1000) == [], "before the first job is held"
    assert drain(holds, ALPHA) == 2
    assert [fleet.status(job) for job in ("here", "also", "there")] == ["paused", "paused", "running"]
    assert fleet.registry.hosts.ring(BETA, 2, lost_after_ms=1000) == ["there"]
    assert drain(holds, ALPHA) == 0, "again changes nothing"
    with pytest.raises(errors.Refused, match="Can't resume a job that was not paused"):
        fleet.registry.verbs.resume("here")
    assert holds.lift(DRAIN + ALPHA) == 2
    assert fleet.registry.hosts.ring(ALPHA, 2, lost_after_ms=1000) == ["also", "here"]


def test_a_job_that_starts_on_a_drained_host_is_held_from_its_start(fleet, holds):
    drain(holds, ALPHA, "kernel update")
    new, other = spec("new", run=LATER), spec("other", host=BETA, run=LATER)
    fleet.submit(new, other)
    fleet.walk(LATER, Step.RUN)
    assert (fleet.status("new"), held(fleet, "new")) == ("paused", {"drain:alpha": "kernel update"})
    assert (fleet.status("other"), held(fleet, "other")) == ("running", {})
    assert ("JOB_HELD", "new") in fleet.events("JOB_HELD")
    holds.lift(DRAIN + ALPHA)
    assert fleet.status("new") == "running"
    assert b"new" in fleet.client.zrange(keys.ready(ALPHA), 0, -1)


def test_a_job_that_starts_while_the_drain_is_being_lifted_is_not_held(fleet, holds):
    drain(holds, ALPHA)
    fleet.client.hset(keys.lifting(), DRAIN + ALPHA, fleet.client.hget(keys.holding(), DRAIN + ALPHA))
    fleet.client.hdel(keys.holding(), DRAIN + ALPHA)
    fleet.submit(spec("new", run=LATER))
    fleet.walk(LATER, Step.RUN)
    assert fleet.status("new") == "running"


def test_a_drained_volume_holds_its_readers_and_its_writer(fleet, holds):
    volume = HERE.source.lock
    assert drain(holds, volume) == 1
    assert (fleet.status("here"), fleet.status("also")) == ("paused", "running")
    reader = spec("reader", run=LATER, source=HERE.source)
    writer = spec("writer", run=LATER + "-2", target=spec("w").target)
    fleet.submit(reader)
    fleet.walk(LATER, Step.RUN)
    assert set(held(fleet, "reader")) == {DRAIN + volume}
    drain(holds, writer.target.lock)
    fleet.submit(writer)
    fleet.walk(writer.transaction, Step.RUN)
    assert set(held(fleet, "writer")) == {DRAIN + writer.target.lock}
    assert holds.lift(DRAIN + volume) == 2


def test_an_attempt_is_told_to_park_for_a_drain_and_not_for_a_pause(fleet, holds):
    claim = fleet.claim(HERE)
    attempts = fleet.host(ALPHA).attempts
    fleet.registry.verbs.pause("here")
    orders = attempts.checkpoint(claim, Progress(1, SIZE))
    assert (orders.pause, orders.park) == (True, False)
    drain(holds, ALPHA)
    orders = attempts.checkpoint(claim, Progress(1, SIZE), quiet=True)
    assert (orders.pause, orders.park) == (True, True)
    attempts.release(HERE.id, HERE.transaction, claim.token, claim.attempt, why="parked")
    view = fleet.registry.views.job("here")
    assert (view.status, view.busy, view.claimed) == ("paused", False, False)
    holds.lift(DRAIN + ALPHA)
    assert fleet.status("here") == "paused", "its user holds it still"
    fleet.registry.verbs.resume("here")
    assert fleet.status("here") == "running"


def test_a_ready_job_that_waits_for_a_slot_is_not_rung_for_while_it_is_held(fleet, holds):
    fleet.client.hset(keys.job(ALPHA, HERE.id), "status", "ready")
    drain(holds, ALPHA)
    assert fleet.status("here") == "standby"
    assert not fleet.client.exists(keys.ready(ALPHA), keys.rung(ALPHA))
