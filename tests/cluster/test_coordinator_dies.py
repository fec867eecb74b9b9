"""A coordinator is killed at every point of a run and of the one that waits for its end; both come to theirs.

The points are its own sends to Redis: the n-th one is preceded by SIGKILL, for n = 1, 2, 3, ... (without ``--long``
every 24th) until it comes through.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from killed import die_before, forked, was_killed
from unstaffed import ListBell, Site, site_in_memory

from blockjobs.daemons import coordinator
from blockjobs.daemons.coordinator import Coordinator
from blockjobs.model.ids import RunId
from blockjobs.model.policies import RunFields, Store
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(coordinator, "DOORBELL_LOST", 200)  # ms, for a bell that died with whoever was to ring it
    with site_in_memory(tmp_path) as site:
        yield site


def killed_at(site: Site, runs: list[RunId], point: int) -> bool:
    """Bring runs to their ends with a coordinator that dies before its n-th send; False: it came through."""

    def left() -> set[str]:
        return {run for run in runs if site.registry.views.run(run).open}

    def work() -> None:
        die_before(point)
        registry = Registry(connect_client(site.url))
        first = Coordinator(registry, ListBell(registry))
        while True:
            first.once()

    pid, finalizer, second = forked(work), site.finalizer(), None
    while left():
        if second is not None:
            second.once()
        elif (ended := os.waitpid(pid, os.WNOHANG))[0]:
            assert was_killed(ended[1])
            second = Coordinator(site.registry, ListBell(site.registry))
        finalizer.once()
        site.serve()
    if second is None:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    return second is not None


def test_a_coordinator_killed_anywhere_leaves_no_run_waiting(site: Site, long: bool) -> None:
    store = {"nas": Store(path="/mnt/nas", jobs=1)}
    for point in count(1, 1 if long else 24):
        runs = [RunId(f"run{point}{letter}") for letter in "ab"]
        for run in runs:
            site.submit(run, RunFields(stores=store, on_overlap="queue"), store="nas")
        dies = killed_at(site, runs, point)
        for run in runs:
            events = [event for event in site.registry.events.all() if event.run == run]
            once = Counter((e.name, e.id, e.fields.get("status", "")) for e in events)
            assert set(once.values()) == {1}, (point, once)
            assert site.registry.views.run(run).failed == 0, point
            assert (site.place / "a" / run / "x.img").read_bytes() == (site.place / "a" / "disk.img").read_bytes()
        ends = [event.id for event in site.registry.events.all() if event.name == "RUN_ENDED"]
        assert ends[-2:] == runs, point
        if not dies:
            break
    assert point > 20, "a coordinator has more to say than that"
