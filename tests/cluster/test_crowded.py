"""Stores that take so many copies: no more run at once in the fleet, whatever dies, and more once it takes more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest
from fleet import MIB, Fleet

from blockjobs.model.ids import RunId
from blockjobs.model.policies import RunFields, Store


@pytest.fixture
def store(fleet: Fleet) -> Iterator[str]:
    """A store of its own for each story; what runs at the end is cancelled."""
    name = f"nas{time.monotonic_ns()}"
    yield name
    fleet.end_runs()


def start(fleet: Fleet, store: str, *, jobs: int, speed: int) -> RunId:
    """Two copies of each of three hosts to one store."""
    hosts = fleet.hosts[:3]
    for host in hosts:
        fleet.image(host, "crowd.img", 24)
    members: list[dict[str, object]] = [
        {"id": f"{host}{n}", "source": f"{host}:{fleet.root(host)}/crowd.img",
         "target": f"{host}:{fleet.root(host)}/{store}-{n}.img"}
        for host in hosts for n in range(2)
    ]  # fmt: skip
    plan = fleet.plan(members, grouped=False, store=store)
    fields = RunFields(stores={store: Store(path="/mnt/nas", jobs=jobs, speed=speed)})
    return fleet.submit(replace(plan, fields=fields))


def most_at_once(fleet: Fleet, run: RunId) -> int:
    """How many copies of a run ran at any time, by the events."""
    running: set[str] = set()
    most = 0
    over = ("waiting", "aborting")
    for event in fleet.registry.events.all():
        if event.run == run and event.name == "ATTEMPT_CLAIMED":
            running.add(event.id)
            most = max(most, len(running))
        elif event.name == "ATTEMPT_RELEASED" or (event.name == "JOB_STATUS_CHANGE" and event.fields["status"] in over):
            running.discard(event.id)
    return most


def until_crowded(fleet: Fleet, run: RunId, store: str) -> None:
    """Wait until a job is in the line of the store, as it was told when its host was to be rung for it; what is let out
    for a place that becomes free may find that another has taken it, and comes again."""
    ahead = fleet.registry.limits.ahead
    fleet.until_true(lambda: any(job.crowded and ahead(store, job.host, job.id) is not None for job in fleet.jobs(run)))


def test_no_more_copies_run_than_the_store_takes_also_when_one_is_killed(fleet: Fleet, store: str) -> None:
    run = start(fleet, store, jobs=2, speed=24 * MIB)
    first = fleet.until("ATTEMPT_CLAIMED")
    fleet.until_offset(first.id, 4 * MIB)
    psutil.Process(fleet.writer(first.host, first.id)).kill()
    fleet.until("ATTEMPT_RELEASED", first.id)
    until_crowded(fleet, run, store)
    fleet.restart("coordinator")
    fleet.until("RUN_ENDED", run)
    assert fleet.registry.views.run(run).failed == 0
    assert most_at_once(fleet, run) == 2


def test_a_store_that_takes_more_gets_more_at_once(fleet: Fleet, store: str) -> None:
    run = start(fleet, store, jobs=1, speed=3 * MIB)
    fleet.until("ATTEMPT_CLAIMED")
    fleet.registry.limits.set_store(store, jobs=3)
    fleet.until("ATTEMPT_CLAIMED")
    fleet.until("ATTEMPT_CLAIMED")
    assert most_at_once(fleet, run) == 3
