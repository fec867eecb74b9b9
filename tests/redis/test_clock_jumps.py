"""The wall clock of Redis is put ahead and back: what is due and over by time stays as far away as it was."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from clocks import server_with_a_clock
from mounts import memory
from puppets import ALPHA, RUN, Fleet, Silent, grouped, spec

from blockjobs.daemons import coordinator as daemon
from blockjobs.daemons.coordinator import Coordinator
from blockjobs.model.barriers import Step
from blockjobs.model.ids import RunId
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.volumespec import FileVolume, HostedVolume
from blockjobs.process.clock import Every
from blockjobs.registry import keys
from blockjobs.registry.clock import JUMP, read_jumps
from blockjobs.registry.connection import connect_client

HOUR, DAY = 3600.0, 86400.0
LATER = RunId("later-20261122T103000Z")


@pytest.fixture(scope="module")
def timed():
    with tempfile.TemporaryDirectory(dir=memory()) as place, server_with_a_clock(Path(place)) as (server, wall):
        with connect_client(server.url) as client:
            client.config_set("appendonly", "no")
        yield server, wall


class Clock:
    """The clock of the server, which looks at the machine's only now and then."""

    def __init__(self, wall, client):
        self._wall, self._client = wall, client

    def put(self, seconds):
        self._wall.put(seconds)
        while abs(self._client.time()[0] - time.time() - seconds) > 1:
            pass


@pytest.fixture
def fleet(timed):
    with connect_client(timed[0].url) as client:
        Clock(timed[1], client).put(0)
        client.flushall()
        yield Fleet(client)


@pytest.fixture
def wall(timed, fleet):
    return Clock(timed[1], fleet.client)


def coordinator_of(fleet):
    return Coordinator(fleet.registry, Silent(), _each_look=Every(0), _each_recovery=Every(0), _each_reminder=Every(0))


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(daemon, "PATIENCE", 2)


@pytest.fixture
def watching(fleet):
    coordinator = coordinator_of(fleet)
    coordinator.once()
    return coordinator


def run_with(**fields):
    return replace(grouped(spec("j")), fields=RunFields(**fields))


# --- what is due by time: how it is made, and whether it still waits -------------------------------------------


def make_deadline(fleet):
    fleet.registry.submit.submit(run_with(deadline=HOUR / 2))


def make_retry(fleet):
    policies = {"each": Policy(grouped=False, retry=1, retry_wait=int(HOUR / 2))}
    job = spec("j", txn=f"{RUN}.each.j")
    fleet.registry.submit.submit(replace(grouped(job), grouped=False, fields=RunFields(policies=policies)))
    fleet.walk(job.transaction, Step.RUN)
    fleet.finish(fleet.claim(job), errno=5, text="EIO")
    fleet.again(job.transaction)


def make_hold(fleet):
    fleet.submit(spec("j"))
    fleet.walk(RUN, Step.RUN)
    fleet.registry.verbs.pause("j", seconds=HOUR / 2)


def make_hold_of_all(fleet):
    fleet.registry.holds.begin("all:x", seconds=HOUR / 2)


def make_stopped(fleet):
    fleet.registry.submit.submit(run_with(hold_timeout=int(HOUR / 2)))
    fleet.walk(RUN, Step.RUN)
    error = {"operation": "write", "action": "stop", "io_status": "nospace", "text": "No space"}
    claim = fleet.claim(spec("j"))
    fleet.host(ALPHA).attempts.error(claim, 1, **error)
    fleet.host(ALPHA).attempts.release("j", RUN, claim.token, claim.attempt, why="parked")
    fleet.registry.events.merge([ALPHA])


def make_reservation(fleet):
    fleet.registry.nodes.reserve(HostedVolume(ALPHA, FileVolume("/backup/x")), "prune", ms=round(HOUR / 2 * 1000))


def make_notice(fleet):
    run = RunId(RUN)
    fleet.submit(spec("j"))
    fleet.client.zadd(keys.untold(), {run: 1})
    fleet.registry.notices.announce(run, {}, [("failed", "https://example.org")])
    ((_, number),) = fleet.registry.notices.due()
    taken = fleet.registry.notices.take(run, number, "me", lease=1)
    assert taken is not None
    fleet.registry.notices.again(taken, HOUR / 2, "it is away")


def make_old_run(fleet):
    fleet.submit(spec("j"))
    fleet.registry.verbs.cancel("j")
    fleet.walk(RUN)


DUE = {
    "a deadline": (make_deadline, lambda fleet: not fleet.registry.views.job("j").cancelled),
    "a retry": (make_retry, lambda fleet: fleet.client.zcard(keys.retries()) == 1),
    "the end of a hold": (make_hold, lambda fleet: fleet.status("j") == "paused"),
    "the end of a hold of all": (make_hold_of_all, lambda fleet: len(fleet.registry.holds.records()) == 1),
    "a job that nobody resumes": (make_stopped, lambda fleet: fleet.status("j") == "paused"),
    "a reservation": (make_reservation, lambda fleet: fleet.client.zcard(keys.reserved()) == 1),
    "a notice": (make_notice, lambda fleet: fleet.registry.notices.due() == []),
    "what is forgotten": (make_old_run, lambda fleet: len(fleet.registry.views.runs()) == 1),
}


@pytest.mark.parametrize("due", DUE.values(), ids=DUE)
def test_a_clock_that_is_put_ahead_makes_nothing_due(fleet, wall, watching, due):
    make, waits = due
    make(fleet)
    watching.once()
    assert waits(fleet)
    wall.put(365 * DAY)
    for _ in range(3):
        watching.once()
    assert waits(fleet)


@pytest.mark.parametrize("due", DUE.values(), ids=DUE)
def test_without_the_watch_it_would(fleet, wall, watching, monkeypatch, due):
    """The control: time passes, as far as anybody can see."""
    make, waits = due
    make(fleet)
    watching.once()
    fleet.client.delete(keys.clock())  # nobody has ever looked
    monkeypatch.setattr(Coordinator, "_watch_clock", lambda _: None)
    monkeypatch.setattr(Coordinator, "_now", lambda mine: mine.registry.hosts.now())
    wall.put(365 * DAY)
    for _ in range(3):
        watching.once()
    assert not waits(fleet)


def test_what_was_due_soon_is_due_soon_though_the_clock_was_put_back(fleet, wall, watching):
    fleet.submit(spec("j"))
    fleet.walk(RUN, Step.RUN)
    fleet.registry.verbs.pause("j", seconds=2)
    wall.put(-HOUR)
    watching.once()
    assert read_jumps(fleet.client) == pytest.approx(-HOUR * 1000, abs=JUMP)
    while fleet.status("j") == "paused":
        watching.once()


# --- the watch -------------------------------------------------------------------------------------------------


def jumps(fleet):
    return [float(event.fields["seconds"]) for event in fleet.history() if event.name == "CLOCK_JUMPED"]


def test_a_jump_is_told_once_whoever_watches(fleet, wall, watching, caplog):
    other = coordinator_of(fleet)
    other.registry.clock.compare("the boot of another machine", 5_000)
    wall.put(HOUR)
    watching.once()
    other.registry.clock.compare("the boot of another machine", 5_100)
    coordinator_of(fleet).once()  # the one that follows on the same machine
    assert jumps(fleet) == [pytest.approx(HOUR, abs=JUMP / 1000)]
    assert "Redis' clock was put +3600" in caplog.text
    wall.put(0)
    watching.once()
    assert sum(jumps(fleet)) == pytest.approx(0, abs=JUMP / 1000)
    assert read_jumps(fleet.client) == pytest.approx(0, abs=JUMP)


def test_a_jump_while_no_coordinator_ran_is_seen_by_the_next_one_of_that_boot(fleet, wall, watching):
    wall.put(HOUR)
    coordinator_of(fleet).once()
    assert jumps(fleet) == [pytest.approx(HOUR, abs=JUMP / 1000)]


def test_a_clock_that_drifts_is_followed(fleet, wall, watching):
    for step in range(1, 6):
        wall.put(step)
        watching.once()
    assert jumps(fleet) == []
    assert read_jumps(fleet.client) == 0


def test_after_a_reboot_time_has_at_least_not_gone_back(fleet, wall, watching):
    before = fleet.registry.clock.now()
    wall.put(-DAY)
    assert fleet.registry.clock.compare("another boot", 1_000)[0] == "jumped"
    assert fleet.registry.clock.now() >= before - JUMP


@pytest.mark.parametrize("known", [True, False], ids=["nobody knows of an absence", "somebody looked long ago"])
def test_after_a_long_absence_nothing_is_forgotten_until_it_is_certain_that_it_was_one(fleet, wall, watching, known):
    make_old_run(fleet)
    fleet.client.delete(keys.clock_anchors())  # the machine was booted since
    if known:
        fleet.client.delete(keys.clock())
    wall.put(100 * DAY)
    next_one = coordinator_of(fleet)
    for _ in range(3):
        next_one.once()
    assert bool(fleet.registry.views.runs()) is not known


def test_the_boots_of_many_machines_are_not_kept_for_ever(fleet, watching):
    for n in range(60):
        fleet.registry.clock.compare(f"boot {n}", 1_000 * n)
    assert fleet.client.hlen(keys.clock_anchors()) <= 22
    assert jumps(fleet) == []
