"""Two hosts without processes: their steps and copies are done where a test says so.

Disks and server are real; only Celery's bell is a list.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mounts import memory

from blockjobs.daemons.finalizer import Finalizer
from blockjobs.model import templates
from blockjobs.model.barriers import Step
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import RunFields
from blockjobs.model.runs import RunPlan, job_volumes
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import HostRegistry, Registry
from blockjobs.server import RedisServer
from blockworker.attempt import attempt
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.steps.steps import Steps

BELL, COPY = "test:bell", "copy"
HOSTS = ("a", "b")
SNAP = """case $2 in
create) cp "$3" "$1/$4"; echo "$1/$4" ;;
remove) rm -f "$1/$4" ;;
esac
"""  # cuts by copying, into the directory that comes first


class ListBell:
    """A doorbell that leaves its rings where the test can pick them up."""

    def __init__(self, registry: Registry) -> None:
        self._client = registry.client

    def step(self, host: Host, step: str, txn: TxnId) -> None:
        self._client.rpush(BELL, f"{host} {step} {txn}")

    def copy(self, host: Host, job: JobId) -> None:
        self._client.rpush(BELL, f"{host} {COPY} {job}")


@dataclass
class Site:
    """Two hosts without processes; ``cuts``: where their command ``snap`` leaves a file for each cut that is there."""

    url: str
    place: Path
    cuts: Path

    def __post_init__(self) -> None:
        self.registry = Registry(connect_client(self.url))
        self.registry.memory.note_restart(self.registry.hosts.run_id(), [])  # as a finalizer that runs before all jobs
        self.hosts: dict[str, HostRegistry] = {}
        self.roots: dict[str, Roots] = {}
        (self.place / "snap").write_text(SNAP)
        commands = {"snap": ("/bin/sh", f"{self.place}/snap", str(self.cuts))}
        for name in HOSTS:
            (self.place / name).mkdir()
            root = str(self.place / name)
            self.hosts[name] = HostRegistry(self.registry.client, Host(name))
            reads = (root, str(self.cuts))
            config = HostConfig(name=Host(name), read_roots=reads, write_roots=(root,), commands=commands)
            self.roots[name] = Roots(config)
            self.hosts[name].hosts.beat(Host(name), "m", 2, {})
            self.registry.hosts.judge(Host(name), "up")
            (self.place / name / "disk.img").write_bytes(os.urandom(3 << 20))

    def finalizer(self) -> Finalizer:
        """One that knows nothing of what was rung for before."""
        return Finalizer(self.registry, ListBell(self.registry))

    def submit(self, run: RunId, fields: RunFields | None = None, **of_x: Any) -> tuple[JobSpec, ...]:
        """Submit a group: jobs x and y on host a, and x on host b; ``of_x``: what else a's job x is told."""
        specs = []
        for host in HOSTS:
            for copy in ("x", "y") if host == "a" else ("x",):
                path = f"{host}:{self.place / host}"
                words = templates.template_words(run, copy, datetime.now(UTC))
                source, target, base = job_volumes(f"{path}/disk.img", f"{path}/{{run}}/{copy}.img", words)
                more = of_x if (host, copy) == ("a", "x") else {}
                specs.append(
                    JobSpec(id=JobId(f"{run}.{host}{copy}"), transaction=TxnId(run), run=run,
                            source=source, target=target, target_base=base, **more)
                )  # fmt: skip
        self.registry.submit.submit(RunPlan(run, "run", True, (tuple(specs),), fields or RunFields()))  # noqa: FBT003
        return tuple(specs)

    def copy(self, *specs: JobSpec) -> None:
        for spec in specs:
            self.registry.hosts.ring(spec.host, 8, lost_after_ms=1000)
            assert self._attempt(spec.host, spec.id) == "done"

    def _attempt(self, host: str, job: JobId) -> str:
        return attempt.run_attempt(self.hosts[host].attempts, self.roots[host], job, draining=bool, tell=str)

    def start(self, txn: str) -> None:
        """Bring a transaction to where its copies begin."""
        finalizer = self.finalizer()
        while self.owed(txn, Step.START):
            finalizer.once()
            self.serve()

    def owed(self, txn: str, step: Step) -> bool:
        view = self.registry.transactions.view(TxnId(txn))
        assert view is not None
        return bool(view.owing(step))

    def steps(self, host: str, url: str = "") -> Steps:
        """A host's steps; with ``url`` by a connection of their own, for another process."""
        door = HostRegistry(connect_client(url), Host(host)) if url else self.hosts[host]
        return Steps(door.answers, self.roots[host])

    def rung(self, seconds: float = 0.01) -> Iterator[tuple[str, str, TxnId]]:
        """What was rung for: host, step and transaction; or host, COPY and job."""
        while (found := self.registry.client.blpop([BELL], timeout=seconds)) is not None:
            host, step, txn = found[1].decode().split()
            yield host, step, TxnId(txn)

    def serve(self) -> None:
        """Do what was rung for."""
        for host, step, what in self.rung():
            if step == COPY:
                self._attempt(host, JobId(what))
            else:
                self.steps(host).take(step, what)

    def finish(self, run: RunId) -> None:
        """A new finalizer takes over; the reaper has reminded it."""
        self.registry.transactions.remind()
        finalizer = self.finalizer()
        for _ in range(40):
            finalizer.once()
            self.serve()
            if run not in self.registry.views.unfinished():
                return
        raise AssertionError(f"{run} does not end: {self.registry.views.transaction(TxnId(run))}")


@contextmanager
def site_in_memory(cuts: Path) -> Iterator[Site]:
    """Where that is possible: processes die here, not disks, and a hundred runs flush a lot.

    ``cuts`` are elsewhere: memory lies below ``/dev``, where a host takes a command's word for a device's.
    """
    with tempfile.TemporaryDirectory(dir=memory()) as place, RedisServer(Path(place) / "redis") as server:
        site = Site(server.url, Path(place), cuts)
        yield site
        site.registry.client.close()
