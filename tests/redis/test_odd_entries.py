"""The coordinator's loops: an entry that nobody of ours wrote so is put aside and named; the next one is handled."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import redis
from puppets import ALPHA, BETA, RUN, Silent, grouped, spec

from blockjobs.ask.checkup import Checkup
from blockjobs.daemons.coordinator import Coordinator
from blockjobs.daemons.notifier import Notifier
from blockjobs.model.barriers import Step
from blockjobs.model.ids import Host, RunId
from blockjobs.model.policies import RunFields
from blockjobs.process.clock import Every
from blockjobs.registry import keys
from blockjobs.registry.retention import SLICE

ODD, SOUND = RunId("aaa-20261122T103000Z"), RunId("zzz-20261122T103000Z")  # the odd one always comes first
LIMIT = 20.0  # seconds, for a busy machine


@pytest.fixture
def coordinator(fleet):
    return Coordinator(fleet.registry, Silent(), _each_look=Every(0), _each_recovery=Every(0), _each_reminder=Every(0))


def turns(daemon, until):
    over = time.monotonic() + LIMIT
    while not until():
        assert time.monotonic() < over, "it does not happen"
        daemon.once()


def plan(run, **fields):
    return replace(grouped(spec(f"{run}.j", run=run)), fields=RunFields(**fields))


def another_kind(client, key):
    client.delete(key)
    client.set(key, "x")


def two(fleet, **fields):
    for run in (ODD, SOUND):
        fleet.registry.submit.submit(plan(run, **fields))


def launch(fleet):
    """What was published, and its client died."""
    for run in (ODD, SOUND):
        job = spec(f"{run}.j", run=run)
        fleet.registry.submit.stage(plan(run), [job])
        fleet.registry.submit.publish(run, 1)
    another_kind(fleet.client, keys.run_jobs(ODD))
    return lambda: fleet.client.hget(keys.job(ALPHA, f"{SOUND}.j"), "status") == b"created"


def staging(fleet):
    """What was staged, and never published."""
    for run in (ODD, SOUND):
        fleet.registry.submit.stage(plan(run), [spec(f"{run}.j", run=run)])
        fleet.client.zadd(keys.staged(), {run: 1})
    another_kind(fleet.client, keys.run_jobs(ODD))
    return lambda: not fleet.client.exists(keys.run(SOUND))


def deadline(fleet):
    two(fleet, deadline=1)
    fleet.client.zadd(keys.deadlines(), {ODD: 1, SOUND: 2})
    fleet.client.hset(keys.run(ODD), "fields", b"\x02of a newer version")
    return lambda: fleet.status(f"{SOUND}.j") == "aborting"


def next_try(fleet):
    two(fleet)
    fleet.client.zadd(keys.retries(), {ODD: 1, SOUND: 2})
    another_kind(fleet.client, keys.txn(ODD))
    return lambda: fleet.client.zscore(keys.retries(), SOUND) is None


def hold_timeout(fleet):
    two(fleet, hold_timeout=1)
    fleet.client.zadd(keys.stopped(), {f"{ODD}.j": 1, f"{SOUND}.j": 2})
    another_kind(fleet.client, keys.job(ALPHA, f"{ODD}.j"))
    return lambda: fleet.client.zscore(keys.stopped(), f"{SOUND}.j") is None


def line(fleet):
    """A run whose turn has come, and one before it in another line."""
    fleet.registry.submit.submit(plan(SOUND, on_overlap="queue"))
    second = RunId("zzz-20261123T103000Z")
    fleet.registry.submit.submit(plan(second, on_overlap="queue"))
    fleet.client.hset(keys.lines(), "aaa", f"{ODD} x")
    another_kind(fleet.client, keys.run(ODD))
    fleet.registry.verbs.cancel(f"{SOUND}.j")
    fleet.walk(SOUND)
    return lambda: fleet.status(f"{second}.j") == "created" and not fleet.client.hget(keys.run(second), "queued")


ENTRIES = {each.__name__: each for each in (launch, staging, deadline, next_try, hold_timeout, line)}


@pytest.mark.parametrize("entries", ENTRIES.values(), ids=ENTRIES)
def test_an_odd_entry_is_named_and_the_one_behind_it_is_handled(fleet, coordinator, entries):
    handled = entries(fleet)
    turns(coordinator, lambda: handled() and coordinator.quarantine.told())
    assert all("aaa" in item for item in coordinator.quarantine.told())
    coordinator.once()
    assert all("aaa" in item for item in fleet.registry.hosts.daemon_aside("coordinator"))


def test_a_part_that_fails_stops_no_other_part(fleet, coordinator):
    """Reservations of volumes that nobody can ask for: runs are launched, and hosts are judged, all the same."""
    another_kind(fleet.client, keys.reserved())
    another_kind(fleet.client, keys.terms())
    handled = launch(fleet)
    turns(coordinator, lambda: handled() and len(coordinator.quarantine.told()) > 2)
    assert {"volumes that are reserved", "holds of jobs"} <= coordinator.quarantine.told().keys()


# --- forgetting -----------------------------------------------------------------------------------------------


def over(fleet, run, jobs=1):
    specs = [spec(f"{run}.j{n}", run=run) for n in range(jobs)]
    fleet.submit(*specs)
    fleet.registry.verbs.cancel(specs[0].id)
    fleet.walk(run)
    fleet.close(run)


@pytest.fixture
def hasty(fleet):
    return Coordinator(fleet.registry, Silent(), keep_runs=-1, _each_reminder=Every(0))


@pytest.mark.parametrize("key", [keys.run, keys.run_jobs, keys.targets], ids=lambda key: key.__name__)
def test_a_run_that_cannot_be_forgotten_keeps_no_other_one(fleet, hasty, key):
    over(fleet, ODD)
    over(fleet, SOUND)
    another_kind(fleet.client, key(ODD))
    turns(hasty, lambda: fleet.client.zrange(keys.runs(), 0, -1) in ([ODD.encode()], []))


class Cut:
    """A client that Redis goes away from at its n-th call; a pipeline counts as one."""

    def __init__(self, client, calls):
        self._client, self._calls = client, calls

    def _count(self):
        self._calls -= 1
        if self._calls < 0:
            raise redis.ConnectionError("Redis was killed here")

    def __getattr__(self, name):
        real = getattr(self._client, name)

        def call(*args, **options):
            self._count()
            return real(*args, **options)

        return call


def test_forgetting_that_is_cut_off_anywhere_is_finished_by_the_next_one(fleet):
    """The record of a run that is gone, while its name is still on the list, stopped each coordinator at its start."""
    for calls in range(100):
        before = set(fleet.client.scan_iter())
        over(fleet, ODD, jobs=3)
        retention = fleet.registry.retention
        retention._redis = Cut(fleet.client, calls)
        now = fleet.registry.hosts.now() + 1000
        try:
            retention.forget(now, keep_ms=0)
        except redis.ConnectionError:
            cut = True
        else:
            cut = False
        retention._redis = fleet.client
        retention.forget(now, keep_ms=0)
        assert fleet.client.zrange(keys.runs(), 0, -1) == []
        assert {key for key in set(fleet.client.scan_iter()) - before if ODD.encode() in key} == set()
        if not cut:
            break
    assert calls > 4


def test_a_big_run_is_forgotten_in_slices(fleet, hasty):
    """Between two slices everything else has its turn."""
    jobs = 2 * SLICE + 50
    over(fleet, ODD, jobs)
    left = [jobs]
    while fleet.client.zcard(keys.runs()):
        hasty.once()
        left.append(fleet.client.hlen(keys.ids()))
    assert left == [jobs, SLICE + 50, 50, 0]


# --- telling and ringing ----------------------------------------------------------------------------------------


def test_a_run_whose_end_cannot_be_told_keeps_no_other_from_being_told(fleet):
    two(fleet, notify={"success": ("https://one.example.com",), "failure": ("https://one.example.com",)})
    for run in (ODD, SOUND):
        fleet.registry.verbs.cancel(f"{run}.j")
        fleet.walk(run)
    fleet.client.hset(keys.run(ODD), "fields", b"\x02of a newer version")
    notifier = Notifier(fleet.registry, (), lambda: "")
    notifier.stop.set()  # no try is to wait
    turns(notifier, lambda: fleet.registry.notices.untold() == [ODD])
    notifier.close()
    assert [item for item in notifier.quarantine.told() if ODD in item]


def test_a_host_whose_line_cannot_be_read_keeps_no_other_from_being_rung(fleet):
    """Its hash of attempts is of another kind."""
    rung = []

    class Bell:
        def copy(self, host, job):
            rung.append((host, job))

    for host in (ALPHA, BETA):
        fleet.host(host).hosts.beat(host, "m", 2, {})
    fleet.submit(spec("a"), spec("b", host=BETA))
    fleet.walk(RUN, Step.RUN)
    another_kind(fleet.client, keys.rung(ALPHA))
    coordinator = Coordinator(fleet.registry, Bell(), _each_look=Every(0))
    turns(coordinator, lambda: rung == [(BETA, "b")])
    assert f"host {ALPHA}: its line" in coordinator.quarantine.told()


def test_doctor_names_what_a_daemon_has_put_aside(fleet, coordinator):
    handled = launch(fleet)
    turns(coordinator, lambda: handled() and fleet.registry.hosts.daemon_aside("coordinator"))
    found = [
        each.text for each in Checkup(fleet.registry, Silent())([Host("none")]) if each.subject == "coordinator"
    ]  # fmt: skip
    assert any(f"run {ODD}: its launch is put aside" in text and "ResponseError" in text for text in found), found
