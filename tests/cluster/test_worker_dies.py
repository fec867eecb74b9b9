"""A host's processes are killed at every point of open, cut, copy, prepare and settle; the end is as if they were not.

The points are their own sends to Redis and, at full length, their changes to the disk, too: the n-th one is preceded
by SIGKILL, for n = 1, 2, 3, ... (without ``--long`` every third) until one comes through.  Of the host's jobs one is
cut by a command, the other is not.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from multiprocessing import Pipe
from pathlib import Path

import pytest
from killed import die_before, forked, killed, was_killed
from unstaffed import HOSTS, Site, site_in_memory

from blockjobs.model.barriers import Step
from blockjobs.model.ids import RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import HostRegistry
from blockworker.attempt import attempt
from blockworker.host.roots import Roots
from blockworker.records.journal import sweep_tombstones
from blockworker.system import kernel
from blockworker.targets.settle import close_settled
from blockworker.watch.watcher import Watcher

OF_THE_DISK = (
    (kernel, "rename_noreplace"),
    *((os, name) for name in ("mkdir", "rename", "link", "unlink", "rmdir", "ftruncate", "fsync", "fdatasync")),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_in_memory(tmp_path) as site:
        yield site


class Worker:
    """A process that does host a's steps as it is told, and dies before its n-th point."""

    def __init__(self, site: Site, point: int, *, disk: bool) -> None:
        self._here, there = Pipe()

        def work() -> None:
            self._here.close()
            steps = site.steps("a", site.url)
            die_before(point, *(OF_THE_DISK if disk else ()))
            with suppress(EOFError):
                while True:
                    steps.take(*there.recv())
                    there.send("done")

        self._pid = forked(work)
        there.close()

    def take(self, step: str, txn: TxnId) -> bool:
        """Whether it came through this step."""
        self._here.send((step, txn))
        try:
            return bool(self._here.recv())
        except EOFError:
            return False

    def died(self) -> bool:
        """Whether it did, now that nothing is left to do."""
        self._here.close()
        return was_killed(os.waitpid(self._pid, 0)[1])


def killed_at(site: Site, run: RunId, point: int, *, fail: bool, disk: bool) -> bool:
    """Bring a group to its end with a worker that dies at its n-th point; False: it came through."""
    specs = site.submit(run, snapshot="command:snap")
    finalizer, worker, staffed, copied = site.finalizer(), Worker(site, point, disk=disk), True, False
    while run in site.registry.views.unfinished():
        finalizer.once()
        for host, step, txn in site.rung():
            if host != "a" or not staffed:
                site.steps(host).take(step, txn)
            elif not worker.take(step, txn):
                staffed, finalizer = False, site.finalizer()
                site.registry.transactions.remind()
        if not copied and not site.owed(run, Step.START):
            copied = True
            site.copy(*specs)
            if fail:
                site.registry.verbs.cancel(f"{run}.bx")
    return worker.died()


def writer_killed_at(site: Site, spec: JobSpec, point: int, *, disk: bool) -> bool:
    """Copy a job in a process of its own that dies at its n-th point; False: it came through."""

    def work() -> None:
        attempts = HostRegistry(connect_client(site.url), spec.host).attempts
        die_before(point, *(OF_THE_DISK if disk else ()))
        attempt.run_attempt(attempts, site.roots[spec.host], spec.id, draining=bool, tell=str)

    site.registry.hosts.ring(spec.host, 8, lost_after_ms=1000)
    return killed(work)


def swept(roots: Roots, place: Path) -> None:
    """What the watcher does after a start, and now and then; a week later."""
    root = roots.root_of(str(place), write=True)
    close_settled(roots, root)
    sweep_tombstones(roots, root, -1)


def ended(site: Site, run: RunId, *, fail: bool) -> None:
    """It was decided once and told once, and what is on the disks is what was decided, and nothing else."""
    events = [event for event in site.registry.events.all() if event.run == run]
    once = Counter((e.name, e.id, e.fields.get("status", "")) for e in events if not e.name.startswith("ATTEMPT"))
    assert set(once.values()) == {1}, events
    (decided,) = [event.fields["decision"] for event in events if event.name == "TRANSACTION_DECIDED"]
    assert decided == ("abort" if fail else "commit")
    for host in HOSTS:
        place = site.place / host
        images = [] if fail else ["x.img", "y.img"] if host == "a" else ["x.img"]
        beside = {f"{image}{end}" for image in images for end in ("", ".blake3", ".manifest.json")}
        assert {path.name for path in place.glob(f"{run}/*")} == beside
        assert (place / run).exists() != fail
        assert all((place / run / image).read_bytes() == (place / "disk.img").read_bytes() for image in images)
        swept(site.roots[host], place)
        assert [*place.rglob(f".*{run}*"), *place.rglob(f"{run}.*")] == []
    assert list(site.cuts.iterdir()) == []


@pytest.mark.parametrize("fail", [False, True], ids=["commit", "abort"])
def test_a_worker_killed_anywhere_leaves_the_same_end_as_one_that_was_not(site: Site, fail: bool, long: bool) -> None:
    for point in count(1, 1 if long else 3):
        run = RunId(f"run{point}")
        dies = killed_at(site, run, point, fail=fail, disk=long)
        ended(site, run, fail=fail)
        if not dies:
            break
    assert point > 20, "a worker has more to say than that"


def test_a_writer_killed_anywhere_is_followed_by_one_that_copies_the_rest(site: Site, long: bool) -> None:
    for point in count(1, 1 if long else 3):
        run = RunId(f"run{point}")
        cut, *others = site.submit(run, snapshot="command:snap")
        site.start(run)
        dies = writer_killed_at(site, cut, point, disk=long)
        Watcher(site.hosts["a"].attempts, site.roots["a"]).look()
        if site.registry.views.job(cut.id).status == "running":
            site.copy(cut)
        site.copy(*others)
        site.finish(run)
        ended(site, run, fail=False)
        if not dies:
            break
    assert point > 5, "a writer has more to say than that"
