"""A finalizer is killed at every point between the decision and the last conclusion; each effect happens once.

The points are its own sends to Redis, all of them, found by counting: the n-th one is preceded by SIGKILL, for
n = 1, 2, 3, ... until a finalizer comes through.  Hosts, disks and server are real; only Celery's bell is a list.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mounts import memory
from redis.connection import AbstractConnection

from blockjobs.daemons.finalizer import Finalizer
from blockjobs.model import templates
from blockjobs.model.barriers import Step
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.runs import RunPlan, volumes
from blockjobs.server import Server
from blockjobs.store.attempts import Claim, Progress, Who
from blockjobs.store.connection import connect
from blockjobs.store.registry import HostRegistry, Registry
from blockworker import attempt
from blockworker.host import HostConfig
from blockworker.roots import Roots
from blockworker.steps import Steps

BELL = "test:bell"
HOSTS = ("a", "b")


class ListBell:
    """A doorbell that leaves its rings where the test can pick them up."""

    def __init__(self, registry: Registry) -> None:
        self._client = registry.client

    def step(self, host: Host, step: str, txn: TxnId) -> None:
        self._client.rpush(BELL, f"{host} {step} {txn}")

    def copy(self, host: Host, job: JobId) -> None:
        raise AssertionError("the finalizer rings for no copies")


@dataclass
class Site:
    """Two hosts without processes: their steps and copies are done where the test says so."""

    url: str
    place: Path

    def __post_init__(self) -> None:
        self.registry = Registry(connect(self.url))
        self.hosts: dict[str, HostRegistry] = {}
        self.roots: dict[str, Roots] = {}
        for name in HOSTS:
            (self.place / name).mkdir()
            root = str(self.place / name)
            self.hosts[name] = HostRegistry(self.registry.client, Host(name))
            self.roots[name] = Roots(HostConfig(name=Host(name), read_roots=(root,), write_roots=(root,)))
            self.hosts[name].hosts.beat(Host(name), "m", 2, {})
            self.registry.hosts.judge(Host(name), "up")
            (self.place / name / "disk.img").write_bytes(os.urandom(3 << 20))

    def prepared(self, number: int, *, fail: bool) -> RunId:
        """Submit a group and bring it to just before its decision: commit, or abort for a cancelled member."""
        run = RunId(f"run{number}")
        specs = []
        for host in HOSTS:
            for copy in ("x", "y") if host == "a" else ("x",):
                path = f"{host}:{self.place / host}"
                words = templates.words(run, copy, datetime.now(UTC))
                source, target, base = volumes(f"{path}/disk.img", f"{path}/{{run}}/{copy}.img", words)
                specs.append(
                    JobSpec(id=JobId(f"{run}.{host}{copy}"), transaction=TxnId(run), run=run,
                            source=source, target=target, target_base=base)
                )  # fmt: skip
        self.registry.submit.submit(RunPlan(run, "run", True, (tuple(specs),)))  # noqa: FBT003
        finalizer = Finalizer(self.registry, ListBell(self.registry))
        for step in (Step.OPEN, Step.START):
            while self._owed(run, step):
                finalizer.once()
                self.serve()
        for spec in specs:
            host = self.hosts[spec.host]
            self.registry.hosts.ring(spec.host, 8, lost_after_ms=1000)
            how = attempt.run(host.attempts, self.roots[spec.host], spec.id, draining=bool, tell=str)
            assert how == "done"
        if fail:
            self.registry.verbs.cancel(f"{run}.bx")
            return run
        view = self.registry.fate.view(TxnId(run))
        assert view is not None
        for name in HOSTS:
            self.registry.fate.pend(view, Host(name))
            Steps(self.hosts[name].answers, self.roots[name]).take("prepare", TxnId(run))
        assert not self._owed(run, Step.PREPARE)
        return run

    def failed(self, number: int) -> RunId:
        """Submit a job that is tried once more, and bring it to where its copy has failed."""
        run, path = RunId(f"run{number}"), f"a:{self.place / 'a'}"
        source, target, base = volumes(f"{path}/disk.img", f"{path}/{{run}}/x.img", {"run": run})
        spec = JobSpec(id=JobId(f"{run}.x"), transaction=TxnId(f"{run}.each.x"), run=run, source=source, target=target,
                       target_base=base)  # fmt: skip
        fields = RunFields(policies={"each": Policy(grouped=False, retry=1, retry_wait=3600)})
        self.registry.submit.submit(RunPlan(run, "run", False, ((spec,),), fields))  # noqa: FBT003
        finalizer = Finalizer(self.registry, ListBell(self.registry))
        while self._owed(spec.transaction, Step.OPEN) or self._owed(spec.transaction, Step.START):
            finalizer.once()
            self.serve()
        self.registry.hosts.ring(spec.host, 8, lost_after_ms=1000)
        attempts = self.hosts["a"].attempts
        claim = attempts.claim(spec.id, Who("attempt", 1, 1.0, "boot"))
        assert isinstance(claim, Claim)
        attempts.finish(claim, Progress(1, 2), durable=None, result={}, errno=5, text="it broke")
        return run

    def tried(self, run: RunId) -> str:
        """The transaction that the job of ``failed`` is in now."""
        return self.registry.views.job(f"{run}.x").transaction

    def _owed(self, txn: str, step: Step) -> bool:
        view = self.registry.fate.view(TxnId(txn))
        assert view is not None
        return bool(view.owing(step))

    def serve(self, seconds: float = 0.01) -> None:
        """Do what was rung for."""
        while (rung := self.registry.client.blpop([BELL], timeout=seconds)) is not None:
            host, step, txn = rung[1].decode().split()
            Steps(self.hosts[host].answers, self.roots[host]).take(step, TxnId(txn))

    def finish(self, run: RunId) -> None:
        """A new finalizer takes over; the reaper has reminded it."""
        self.registry.fate.remind()
        finalizer = Finalizer(self.registry, ListBell(self.registry))
        for _ in range(40):
            finalizer.once()
            self.serve()
            if run not in self.registry.views.unfinished():
                return
        raise AssertionError(f"{run} does not end: {self.registry.views.transaction(TxnId(run))}")

    def finalizer_killed_at(self, txn: str, point: int) -> bool:
        """Run a finalizer in a process of its own until it dies before its n-th send; False: it came through."""
        pid = os.fork()
        if pid == 0:
            _count_down(point)
            registry = Registry(connect(self.url))
            finalizer = Finalizer(registry, ListBell(registry))
            while txn in registry.views.unfinished():
                finalizer.once()
            os._exit(0)
        while True:
            self.serve()
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.serve()
                assert status in (0, signal.SIGKILL), status
                return os.WIFSIGNALED(status)


def _count_down(point: int) -> None:
    send, sent = AbstractConnection.send_packed_command, Counter[str]()

    def counted(self: AbstractConnection, *args: object, **kwargs: object) -> None:
        sent["all"] += 1
        if sent["all"] == point:
            os.kill(os.getpid(), signal.SIGKILL)
        send(self, *args, **kwargs)  # type: ignore[no-untyped-call]

    AbstractConnection.send_packed_command = counted  # type: ignore[method-assign]


@pytest.fixture
def site() -> Iterator[Site]:
    """In memory where that is possible: processes die here, not disks, and eighty runs flush a lot."""
    with tempfile.TemporaryDirectory(dir=memory()) as place, Server(Path(place) / "redis") as server:
        site = Site(server.url, Path(place))
        yield site
        site.registry.client.close()


@pytest.mark.parametrize("fail", [False, True], ids=["commit", "abort"])
def test_a_finalizer_killed_anywhere_leaves_nothing_undone_and_nothing_done_twice(site: Site, fail: bool) -> None:
    point = 0
    dies = True
    while dies:
        point += 1
        run = site.prepared(point, fail=fail)
        dies = site.finalizer_killed_at(run, point)
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


def test_a_finalizer_killed_anywhere_tries_a_job_again_once_and_not_twice(site: Site) -> None:
    point = 0
    dies = True
    while dies:
        point += 1
        run = site.failed(point)
        first = f"{run}.each.x"
        dies = site.finalizer_killed_at(first, point)
        site.registry.fate.remind()
        finalizer = Finalizer(site.registry, ListBell(site.registry))
        while site.tried(run) == first or first in site.registry.views.unfinished():
            finalizer.once()
            site.serve()
        events = Counter(e.name for e in site.registry.events.all() if e.run == run)
        assert (events["JOB_RETRIED"], events["BLOCK_JOB_COMPLETED"], events["RUN_ENDED"]) == (1, 1, 0), point
        assert site.tried(run) == f"{first}.try2"
        assert [place.transaction for place in site.registry.views.places(run)] == [f"{first}.try2"]
        view = site.registry.views.run(run)
        assert (view.open, view.failed, view.retried) == (1, 0, 1), point
        assert not (site.place / "a" / run).exists(), f"point {point}"
    assert point > 10, "the finalizer has more to say to Redis than that"
