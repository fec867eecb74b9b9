"""A finalizer is killed at every point between the decision and the last conclusion; each effect happens once.

The points are its own sends to Redis, found by counting: the n-th one is preceded by SIGKILL, for n = 1, 2, 3, ...
(without ``--long`` every third) until it comes through.  Hosts, disks and server are real; Celery's bell is a list.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed import die_before, forked, was_killed
from unstaffed import HOSTS, ListBell, Site, site_in_memory

from blockjobs.daemons.finalizer import Finalizer
from blockjobs.model.barriers import Step
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.runs import RunPlan, job_volumes
from blockjobs.registry.attempts import Claim, Progress, Who
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_in_memory(tmp_path) as site:
        yield site


def prepared(site: Site, number: int, *, fail: bool) -> RunId:
    """Submit a group and bring it to just before its decision: commit, or abort for a cancelled member."""
    run = RunId(f"run{number}")
    specs = site.submit(run)
    site.start(run)
    site.copy(*specs)
    if fail:
        site.registry.verbs.cancel(f"{run}.bx")
        return run
    view = site.registry.transactions.view(TxnId(run))
    assert view is not None
    for name in HOSTS:
        site.registry.transactions.pend(view, Host(name))
        site.steps(name).take("prepare", TxnId(run))
    assert not site.owed(run, Step.PREPARE)
    return run


def failed(site: Site, number: int) -> RunId:
    """Submit a job that is tried once more, and bring it to where its copy has failed."""
    run, path = RunId(f"run{number}"), f"a:{site.place / 'a'}"
    source, target, base = job_volumes(f"{path}/disk.img", f"{path}/{{run}}/x.img", {"run": run})
    spec = JobSpec(id=JobId(f"{run}.x"), transaction=TxnId(f"{run}.each.x"), run=run, source=source, target=target,
                   target_base=base)  # fmt: skip
    fields = RunFields(policies={"each": Policy(grouped=False, retry=1, retry_wait=3600)})
    site.registry.submit.submit(RunPlan(run, "run", False, ((spec,),), fields))  # noqa: FBT003
    site.start(spec.transaction)
    site.registry.hosts.ring(spec.host, 8, lost_after_ms=1000)
    attempts = site.hosts["a"].attempts
    claim = attempts.claim(spec.id, Who("attempt", 1, 1.0, "boot"))
    assert isinstance(claim, Claim)
    attempts.finish(claim, Progress(1, 2), durable=None, result={}, errno=5, text="it broke")
    return run


def tried(site: Site, run: RunId) -> str:
    """The transaction that the job of ``failed`` is in now."""
    return site.registry.views.job(f"{run}.x").transaction


def finalizer_killed_at(site: Site, txn: str, point: int) -> bool:
    """Run a finalizer in a process of its own until it dies before its n-th send; False: it came through."""

    def work() -> None:
        die_before(point)
        registry = Registry(connect_client(site.url))
        finalizer = Finalizer(registry, ListBell(registry))
        while txn in registry.views.unfinished():
            finalizer.once()

    pid = forked(work)
    while True:
        site.serve()
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            site.serve()
            return was_killed(status)


@pytest.mark.parametrize("fail", [False, True], ids=["commit", "abort"])
def test_a_finalizer_killed_anywhere_leaves_nothing_undone_and_nothing_done_twice(
    site: Site, fail: bool, long: bool
) -> None:
    point, step = 0, 1 if long else 3
    dies = True
    while dies:
        point += step
        run = prepared(site, point, fail=fail)
        dies = finalizer_killed_at(site, run, point)
        site.finish(run)
        events = Counter((e.name, e.id, e.fields.get("status", "")) for e in site.registry.events.all() if e.run == run)
        assert set(events.values()) == {1}, (point, events)
        decisions = [e for e in site.registry.events.all() if e.run == run and e.name == "TRANSACTION_DECIDED"]
        assert [event.fields["decision"] for event in decisions] == ["abort" if fail else "commit"]
        for host in HOSTS:
            left = {p.name for p in (site.place / host / run).glob("*")} if not fail else None
            if left is None:
                assert not (site.place / host / run).exists(), f"point {point}"
            else:
                images = {"x.img", "y.img"} if host == "a" else {"x.img"}
                beside = {f"{image}{end}" for image in images for end in (".blake3", ".manifest.json")}
                assert left == images | beside, f"point {point}"
                assert (site.place / host / run / "x.img").read_bytes() == (site.place / host / "disk.img").read_bytes()
        views = list(site.registry.views.jobs(site.registry.views.places(run)))
        assert {str(view.status) for view in views} == {"concluded"}
        assert {bool(view.error) for view in views} == {fail}
    assert point > 20, "the finalizer has more to say to Redis than that"


def test_a_finalizer_killed_anywhere_tries_a_job_again_once_and_not_twice(site: Site, long: bool) -> None:
    point, step = 0, 1 if long else 3
    dies = True
    while dies:
        point += step
        run = failed(site, point)
        first = f"{run}.each.x"
        dies = finalizer_killed_at(site, first, point)
        site.registry.transactions.remind()
        finalizer = site.finalizer()
        while tried(site, run) == first or first in site.registry.views.unfinished():
            finalizer.once()
            site.serve()
        events = Counter(e.name for e in site.registry.events.all() if e.run == run)
        assert (events["JOB_RETRIED"], events["BLOCK_JOB_COMPLETED"], events["RUN_ENDED"]) == (1, 1, 0), point
        assert tried(site, run) == f"{first}.try2"
        assert [place.transaction for place in site.registry.views.places(run)] == [f"{first}.try2"]
        view = site.registry.views.run(run)
        assert (view.open, view.failed, view.retried) == (1, 0, 1), point
        assert not (site.place / "a" / run).exists(), f"point {point}"
    assert point > 10, "the finalizer has more to say to Redis than that"
