"""pause-all holds exactly the jobs that exist, and resume-all lets exactly those go on."""

from __future__ import annotations

import json

import pytest
from puppets import ALPHA, BETA, RUN, SIZE, Fleet, many, spec

from blockjobs.model.barriers import Step
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress
from blockjobs.registry.holds import ALL
from blockjobs.registry.nodes import Node

pytestmark = pytest.mark.durable

LATER = "later-20261122T110000Z"
HERE, THERE, HELD = spec("here"), spec("there", host=BETA), spec("held")
NEW = spec("new", run=LATER)


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(HERE, THERE, HELD)
    return fleet


@pytest.fixture
def holds(fleet):
    return fleet.registry.holds


def pause_all(holds, name="x", **how):
    assert holds.begin(ALL + name, **how)
    return holds.hold(ALL + name, how.get("cause", ""))


def reasons(fleet, job):
    return set(fleet.registry.views.job(job).holds)


def test_it_holds_what_exists_and_nothing_that_comes_later(fleet, holds):
    fleet.walk(RUN, Step.RUN)
    assert pause_all(holds, cause="firmware") == 3
    fleet.submit(NEW)
    fleet.walk(LATER, Step.RUN)
    assert {job: fleet.status(job) for job in ("here", "there", "held", "new")} == {
        "here": "paused", "there": "paused", "held": "paused", "new": "running",
    }  # fmt: skip
    assert fleet.registry.views.job("here").holds == {"all:x": "firmware"}
    assert holds.lift("all:x") == 3
    assert {fleet.status(job) for job in ("here", "there", "held", "new")} == {"running"}
    assert set(fleet.client.zrange(keys.ready(ALPHA), 0, -1)) == {b"new", b"here", b"held"}
    assert holds.records() == []


def test_a_job_held_for_other_reasons_too_stays_held_and_the_user_cannot_lift_it(fleet, holds):
    fleet.walk(RUN, Step.RUN)
    fleet.registry.verbs.pause("held")
    pause_all(holds, "x")
    pause_all(holds, "y")
    assert reasons(fleet, "held") == {"user", "all:x", "all:y"}
    fleet.registry.verbs.resume("held")
    holds.lift("all:x")
    assert (fleet.status("held"), reasons(fleet, "held")) == ("paused", {"all:y"})
    holds.lift("all:y")
    assert fleet.status("held") == "running"


def test_a_job_with_an_attempt_is_told_and_a_created_one_is_held_before_its_start(fleet, holds):
    fleet.walk(RUN, Step.RUN)
    claim = fleet.claim(HERE)
    fleet.submit(NEW)
    assert pause_all(holds) == 4
    view = fleet.registry.views.job("here")
    assert (view.status, view.paused, view.busy) == ("running", True, True)
    assert fleet.host(ALPHA).attempts.checkpoint(claim, Progress(1, SIZE), quiet=True).pause
    assert fleet.status("here") == "paused"
    fleet.walk(LATER, Step.RUN)
    assert fleet.status("new") == "paused"
    assert holds.lift("all:x") == 4
    assert not fleet.host(ALPHA).attempts.checkpoint(claim, Progress(1, SIZE)).pause
    assert fleet.status("here") == fleet.status("new") == "running"


def test_jobs_past_copying_are_left_alone(fleet, holds):
    fleet.walk(RUN, Step.RUN)
    fleet.copy(HERE)
    assert pause_all(holds) == 2
    assert fleet.status("here") == "waiting"
    holds.lift("all:x")
    fleet.copy(THERE, HELD)
    fleet.walk(RUN)
    assert fleet.status("here") == "concluded"
    assert holds.lift("all:x") is None


def test_one_name_is_in_force_once(fleet, holds):
    pause_all(holds)
    assert not holds.begin("all:x")
    (record,) = holds.records()
    assert (record.reason, record.expires, record.lifting) == ("all:x", 0, False)


def test_the_new_job_of_a_dismissed_id_is_not_held(fleet, holds):
    fleet.walk(RUN, Step.RUN)
    pause_all(holds)
    fleet.registry.verbs.cancel("here")
    fleet.walk(RUN)
    fleet.registry.verbs.dismiss("here")
    fleet.submit(spec("here", run=LATER))
    fleet.walk(LATER, Step.RUN)
    assert fleet.status("here") == "running"
    assert holds.lift("all:x") == 0


def test_what_a_dead_client_left_half_lifted_is_finished_by_the_reaper(fleet, holds):
    fleet.walk(RUN, Step.RUN)
    pause_all(holds)
    record = fleet.client.hget(keys.holding(), "all:x")
    fleet.client.hset(keys.lifting(), "all:x", record)
    fleet.client.hdel(keys.holding(), "all:x")
    assert [each.lifting for each in holds.records()] == [True]
    assert holds.hold("all:x") == 0, "nothing is held for a reason that is being lifted"
    assert holds.reap(fleet.registry.clock.now()) == ["all:x"]
    assert fleet.status("here") == "running"
    assert holds.reap(fleet.registry.clock.now()) == []


def test_one_that_has_expired_is_lifted(fleet, holds):
    fleet.walk(RUN, Step.RUN)
    pause_all(holds, "short", seconds=0.001)
    pause_all(holds, "long", seconds=3600)
    fleet.client.blpop(["test:nobody-pushes-here"], timeout=0.01)
    assert holds.reap(fleet.registry.clock.now()) == ["all:short"]
    assert reasons(fleet, "here") == {"all:long"}


def test_a_thousand_jobs_are_held_and_let_go(client):
    fleet = Fleet(client)
    fleet.registry.submit.submit(many(1000))
    assert pause_all(fleet.registry.holds) == 1000
    assert fleet.registry.holds.lift("all:x") == 1000


def test_the_commands_say_what_they_hold_and_who_holds_it(fleet, command):
    fleet.walk(RUN, Step.RUN)
    code, out, _ = command("pause-all", "firmware", "--cause", "switch firmware", "--for", "3600")
    assert (code, out) == (0, "firmware: 3 jobs held; to lift it: blockjobs resume-all firmware\n")
    code, _, err = command("pause-all", "firmware")
    assert (code, "pauses jobs already" in err) == (2, True)
    told = command("status")[1].splitlines()[0]
    assert told.startswith("all:firmware holds jobs since ")
    assert "switch firmware, by " in told
    assert "held by all:firmware (since " in command("show", "here")[1]
    assert json.loads(command("status", "--json")[1])["holding"][0]["reason"] == "all:firmware"
    assert command("resume-all")[:2] == (0, "firmware: no longer holds 3 jobs\n")
    assert command("resume-all")[0] == command("resume-all", "firmware")[0] == 2


def test_a_drain_says_how_the_host_came_to_rest(fleet, command):
    fleet.walk(RUN, Step.RUN)
    fleet.registry.hosts.judge(ALPHA, "up")
    code, out, _ = command("drain", "alpha", "--cause", "kernel update")
    assert (code, out.splitlines()) == (
        0,
        ["alpha: 2 jobs held; to lift it: blockjobs undrain alpha", "alpha: at rest: 2 jobs paused"],
    )
    assert "held by drain:alpha" in command("show", "here")[1]
    assert "up, drained" in command("hosts")[1]
    assert command("undrain", "alpha")[:2] == (0, "alpha: no longer holds 2 jobs\n")
    fleet.claim(HERE)
    code, _, err = command("drain", "alpha", "--timeout", "0.01")
    assert code == 5
    assert err.splitlines()[0] == "alpha: job here has not stopped writing yet"
    assert command("undrain", "beta")[0] == command("undrain", "nothing")[0] == 2


def test_a_volume_is_drained_by_its_name(fleet, command):
    fleet.walk(RUN, Step.RUN)
    fleet.registry.nodes.add(Node("disk", HERE.source, {}))
    assert command("drain", "disk")[0] == 0
    assert reasons(fleet, "here") == {"drain:alpha:/srv/here.img"}
    assert command("undrain", "node:disk")[:2] == (0, "node:disk: no longer holds 1 job\n")
