"""The size the product is for: 200 hosts x 5 jobs, stand-ins for the workers, everything else as it is.

A thousand transactions take a processor a minute: without ``--long`` they are two hundred.  Nothing here judges a time
but the waits' own deadlines; ``benchmarks/bench_fleet.py`` measures.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from forks import forks

from blockjobs.client.fleet import Fleet as Client
from blockjobs.model import errors
from blockjobs.model.ids import Host, RunId
from blockjobs.registry.events import Event

STANDINS = "standins:main"
HOSTS = [f"h{number:03}" for number in range(200)]
GIVEN_UP, VICTIM = "h198", "h199"  # each in a process of its own, to be killed
JOBS, FEW = 5, 2  # a host
MANY = 2  # processes that stand in for hosts
SIZE = 1 << 30
PATIENCE = 180.0  # seconds


class Hundreds(Fleet):
    """The lead fleet's server and daemons, and stand-ins instead of workers."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, [])
        for number in range(MANY):
            self.standins(f"many-{number}", HOSTS[number:198:MANY])
        self.standins("given-up", [GIVEN_UP])
        self.standins("victim", [VICTIM], stuck=True)
        missing = set(HOSTS)
        while missing:
            missing.discard(self.until("HOST_UP").id)

    def standins(self, name: str, hosts: list[str], *, stuck: bool = False) -> None:
        words, log = [*(["--stuck"] if stuck else []), self.server.url, *hosts], self.place / "logs" / f"{name}.log"
        self.processes[name] = forks().start(STANDINS, words, log=log, env=os.environ)

    def nulls(self, hosts: list[str], jobs: int = JOBS) -> list[dict[str, object]]:
        null = {"driver": "null-co", "size": SIZE, "read-zeroes": True}
        return [
            {"id": f"{host}-{n}", "source": {**null, "host": host}, "target": {**null, "host": host}}
            for host in hosts for n in range(jobs)
        ]  # fmt: skip

    def stream(self) -> Iterator[Event]:
        """As of the small fleet, but on a busy machine a thousand transactions take their time."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for event in self.registry.events.after(self.seq, block_ms=500):
                self.seq = event.seq
                yield event

    def until_ended(self, run: RunId) -> Counter[str]:
        """Read on to the run's end; how often each event and each status was seen on the way."""
        seen: Counter[str] = Counter()
        for event in self.stream():
            if event.run == run:
                seen[event.fields.get("status", event.name)] += 1
            if event.name == "RUN_ENDED" and event.id == run:
                return seen
        raise AssertionError(f"run {run} did not end: {seen}\n{self.tails()}")


@pytest.fixture(scope="module")
def hundreds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hundreds]:
    fleet = Hundreds(tmp_path_factory.mktemp("hundreds"))
    yield fleet
    fleet.close()


@pytest.mark.parametrize("grouped", [True, False], ids=["one-transaction", "a-transaction-a-job"])
def test_all_jobs_on_two_hundred_hosts_commit(hundreds: Hundreds, grouped: bool, long: bool) -> None:
    each = JOBS if grouped or long else 1
    hosts = [*HOSTS[:199], HOSTS[0]]  # the one that is stuck takes no part
    plan = hundreds.plan(hundreds.nulls(HOSTS[:199], each) + [  # more of the first host make it a round number
        {**job, "id": f"more-{job['id']}"} for job in hundreds.nulls(hosts[-1:], each)], grouped=grouped)  # fmt: skip
    run = hundreds.submit(plan)
    views = hundreds.jobs(run)
    number = 200 * each
    assert len(views) == number
    assert {view.host for view in views} == set(HOSTS[:199])
    seen = hundreds.until_ended(run)
    once = ("created", "waiting", "pending", "concluded", "BLOCK_JOB_COMPLETED", "ATTEMPT_CLAIMED")
    assert {name: seen[name] for name in once} == dict.fromkeys(once, number)
    assert seen["TRANSACTION_DECIDED"] == (1 if grouped else number)
    ended = hundreds.registry.views.run(run)
    assert (ended.jobs, ended.open, ended.failed, ended.cancelled) == (number, 0, 0, 0)
    views = hundreds.jobs(run)
    assert {(str(view.status), view.ret, view.offset, view.len) for view in views} == {("concluded", 0, SIZE, SIZE)}
    assert not hundreds.client.exists("bj:unfinished")


def test_a_host_that_is_down_is_refused_by_name_and_nothing_is_submitted(hundreds: Hundreds) -> None:
    hundreds.kill("given-up")
    hundreds.until("HOST_DOWN", GIVEN_UP)
    plan = hundreds.plan(hundreds.nulls(HOSTS))
    with Client(hundreds.server.url) as fleet, pytest.raises(errors.HostDown, match=f"'{GIVEN_UP}' is down since"):
        fleet.submit(plan)
    assert not list(hundreds.jobs(plan.run))
    with pytest.raises(errors.NoSuchRun):
        hundreds.registry.views.run(plan.run)


def test_one_host_that_dies_in_run_is_shown_with_what_it_owes_and_an_abort_concludes_all_others(
    hundreds: Hundreds,
) -> None:
    hosts = [host for host in HOSTS if host != GIVEN_UP]
    run = hundreds.submit(hundreds.plan(hundreds.nulls(hosts, FEW)))
    claims = Counter(waiting=-FEW * 198)
    for event in hundreds.stream():  # until all others are done, and the victim's copies are claimed
        claims["waiting"] += event.fields.get("status") == "waiting"
        claims["victim"] += event.name == "ATTEMPT_CLAIMED" and event.host == VICTIM
        if not claims["waiting"] and claims["victim"] == FEW:
            break
    hundreds.kill("victim")
    hundreds.until("HOST_DOWN", VICTIM)

    view = hundreds.registry.views.transaction(hundreds.job(f"{run}.h000-0").transaction)
    assert view is not None
    assert (view.barrier, view.decision) == ("run", "")
    assert {host: owed["run"] for host, owed in view.owing.items() if owed["run"]} == {Host(VICTIM): FEW}
    assert hundreds.registry.hosts.known()[Host(VICTIM)][0] == "down"

    hundreds.registry.verbs.cancel(f"{run}.h000-0")
    concluded = 0
    for event in hundreds.stream():
        concluded += event.run == run and event.fields.get("status") == "concluded"
        if concluded == FEW * 198:
            break
    assert hundreds.registry.views.run(run).open == FEW
    assert {view.host for view in hundreds.jobs(run) if str(view.status) != "concluded"} == {VICTIM}

    hundreds.standins("victim", [VICTIM])  # it is back: its watcher finds the dead attempts, and it settles
    hundreds.until_ended(run)
    ended = hundreds.registry.views.run(run)
    assert (ended.open, ended.cancelled) == (0, FEW * 199)
    assert {view.error for view in hundreds.jobs(run)} == {errors.ECANCELED_TEXT}
