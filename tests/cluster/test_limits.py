"""Stores: one budget and one number of copies for the whole fleet, whatever dies; and what changes live."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import psutil
import pytest
from fleet import MIB, Fleet

from blockjobs.model.ids import RunId
from blockjobs.model.policies import RunFields, Store

BUDGET = 60 * MIB
WINDOW = 2.0  # seconds


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("limits"), ["a", "b", "c"])
    for host in fleet.hosts:
        fleet.image(host, "disk.img", 320)
    yield fleet
    fleet.close()


@pytest.fixture
def store(trio: Fleet) -> Iterator[str]:
    """A store of its own for each story; what runs at the end is cancelled."""
    trio.mend()
    name = f"nas{time.monotonic_ns()}"
    yield name
    for job in trio.registry.views.jobs(trio.registry.views.all()):
        if job.status != "concluded":
            trio.registry.verbs.cancel(job.id)
    for run in trio.registry.views.runs():
        if not run.ended:
            trio.until("RUN_ENDED", run.id)


def start(trio: Fleet, store: str, *, jobs: int = 0, speed: int = 0, each: int = 1, **options: object) -> RunId:
    """Copies of each host to one store."""
    members: list[dict[str, object]] = [
        {"id": f"{host}{n}", "source": f"{host}:{trio.root(host)}/disk.img",
         "target": f"{host}:{trio.root(host)}/{store}-{n}.img"}
        for host in trio.hosts for n in range(each)
    ]  # fmt: skip
    plan = trio.plan(members, grouped=False, store=store, **options)
    fields = RunFields(stores={store: Store(path="/mnt/nas", jobs=jobs, speed=speed)})
    return trio.submit(replace(plan, fields=fields))


@dataclass
class Meter:
    """Bytes that writers have written, looked at twenty times a second."""

    writers: Sequence[psutil.Process]
    seen: list[tuple[float, int]] = field(default_factory=list)

    def look(self) -> None:
        self.seen.append((time.monotonic(), sum(w.io_counters().write_chars for w in self.writers)))

    def rates(self, window: float = WINDOW) -> list[float]:
        """Of every window, in bytes a second."""
        found = []
        for at, (began, first) in enumerate(self.seen):
            for ended, last in self.seen[at:]:
                if ended - began >= window:
                    found.append((last - first) / (ended - began))
                    break
        return found


def watch(trio: Fleet, run: RunId, seconds: float) -> Meter:
    """What the three writers of a run write."""
    meter = Meter([psutil.Process(trio.writer(job.host, job.id)) for job in trio.jobs(run)])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        meter.look()
        trio.client.blpop(["test:nobody-pushes-here"], timeout=0.05)
    return meter


def all_run(trio: Fleet, run: RunId) -> None:
    for job in trio.jobs(run):
        trio.until_offset(job.id, MIB)


def test_three_hosts_share_one_budget_within_five_percent_over_any_two_seconds(trio: Fleet, store: str) -> None:
    run = start(trio, store, speed=BUDGET)
    all_run(trio, run)
    rates = watch(trio, run, 8.0).rates()
    print(f"{len(rates)} windows of {WINDOW} s: {min(rates) / MIB:.1f} to {max(rates) / MIB:.1f} MiB/s")
    assert min(rates) >= 0.95 * BUDGET and max(rates) <= 1.05 * BUDGET
