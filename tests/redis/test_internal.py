"""Internal jobs do their work and are seen by nobody: not listed, not named, no event of theirs."""

from __future__ import annotations

import pytest
from puppets import ALPHA, RUN, Fleet, spec

from blockjobs.client.fleet import Fleet as Client
from blockjobs.model import errors, ids
from blockjobs.model.barriers import Step
from blockjobs.model.ids import Host
from blockjobs.registry.doors import Registry

pytestmark = pytest.mark.durable

HIDDEN = ids.internal_run("health")
INNER, OUTER = spec(f"{HIDDEN}.probe", run=HIDDEN), spec("outer")


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(OUTER)
    fleet.submit(INNER)
    fleet.walk(RUN, Step.RUN)
    fleet.walk(HIDDEN, Step.RUN)
    return fleet


@pytest.fixture
def inside(client):
    return Registry(client, internal=True)


@pytest.fixture
def here(server, client):
    with Client(server.url) as here:
        yield here


def test_no_user_can_say_the_name_of_one():
    for name in (HIDDEN, INNER.id):
        assert ids.is_internal(name)
        with pytest.raises(errors.BadInput, match="Invalid job ID"):
            ids.job_id(name)


def test_nobody_finds_it_by_name_or_in_a_list(fleet, here):
    for look in (here.get, here.pause, here.resume, here.cancel, here.finalize, here.dismiss, here.complete):
        with pytest.raises(errors.NoSuchJob):
            look(INNER.id)
    with pytest.raises(errors.NoSuchRun):
        here.run(HIDDEN)
    assert [run.id for run in here.runs()] == [run.id for run in here.runs(limit=1)] == [RUN]
    assert [place.job for place in here.registry.views.all()] == ["outer"]
    assert here.registry.views.unfinished() == [RUN]
    assert here.glances.unfinished_runs() == here.glances.runs_like("*") == [RUN]
    assert [place.job for place in here.glances.jobs_like("*")] == ["outer"]


def test_its_events_are_read_by_the_machinery_alone(fleet, here, inside):
    end = here.registry.events.last()
    assert {event.run for event in here.events()} == {RUN}
    assert {event.run for event in inside.events.all()} == {RUN, HIDDEN}
    fleet.copy(INNER)
    fleet.walk(HIDDEN)
    assert here.registry.events.last() == end
    assert here.registry.events.after(end, block_ms=20) == []
    assert [event.name for event in inside.events.all() if event.run == HIDDEN][-1] == "RUN_ENDED"
    fleet.registry.verbs.pause("outer")
    assert [event.id for event in here.registry.events.after(end)] == ["outer", "outer"]


def test_it_is_held_with_all_others_and_a_drain_waits_for_it(fleet, here, inside):
    fleet.registry.hosts.judge(ALPHA, "up")
    assert here.pause_all("x")[1] == 2
    assert here.resume_all("x") == 2
    claim = fleet.claim(INNER)
    assert here.drain("alpha") == 1, "of those that can be seen"
    with pytest.raises(errors.WaitTimedOut):
        here.wait_drained("alpha", 0)
    fleet.host(Host(ALPHA)).attempts.release(INNER.id, HIDDEN, claim.token, claim.attempt, why="parked")
    here.wait_drained("alpha", 0)
    assert inside.views.job(INNER.id).paused
    here.undrain("alpha")


def test_the_machinery_uses_it_as_any_other(fleet, inside):
    assert inside.verbs.pause(INNER.id) == "paused"
    assert inside.verbs.resume(INNER.id) == "running"
    inside.verbs.cancel(INNER.id)
    fleet.walk(HIDDEN)
    assert inside.views.run(HIDDEN).cancelled == 1
    inside.verbs.dismiss(INNER.id)
