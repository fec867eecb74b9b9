"""A job that is paused for long gives its slot back, and goes on where it was when it is resumed."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blockjobs.daemons.finalizer import Finalizer
from blockjobs.model import templates
from blockjobs.model.barriers import Step
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.runs import RunPlan, volumes
from blockjobs.server import Server
from blockjobs.store.connection import connect
from blockjobs.store.registry import HostRegistry, Registry
from blockworker import attempt, pausepoint
from blockworker.host import HostConfig
from blockworker.roots import Roots
from blockworker.steps import Steps

MIB = 1 << 20
JOB = JobId("parked.j")


class Inline:
    """A doorbell that does the steps itself, at once."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def step(self, host: Host, step: str, txn: TxnId) -> None:
        self._steps.take(step, txn)

    def copy(self, host: Host, job: JobId) -> None:
        raise AssertionError("the finalizer rings for no copies")


def test_a_job_paused_for_longer_than_the_limit_is_parked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausepoint, "PARK_AFTER", 0.3)
    source = tmp_path / "disk.img"
    source.write_bytes(os.urandom(24 * MIB))
    with Server(tmp_path / "redis") as server, connect(server.url) as client:
        registry, host = Registry(client), HostRegistry(client, Host("a"))
        roots = Roots(HostConfig(name=Host("a"), read_roots=(str(tmp_path),), write_roots=(str(tmp_path),)))
        host.hosts.beat(Host("a"), "m", 2, {})
        registry.hosts.judge(Host("a"), "up")
        words = templates.words(RunId("parked"), "j", datetime.now(UTC))
        read, written, base = volumes(f"a:{source}", f"a:{tmp_path}/copy.img", words)
        job = JobSpec(id=JOB, transaction=TxnId("parked"), run=RunId("parked"), source=read, target=written,
                      target_base=base, speed=8 * MIB)  # fmt: skip
        registry.submit.submit(RunPlan(job.run, "parked", grouped=True, transactions=((job,),)))
        finalizer = Finalizer(registry, Inline(Steps(host.answers, roots)))
        while (view := registry.fate.view(job.transaction)) and (view.owing(Step.OPEN) or view.owing(Step.START)):
            finalizer.once()

        ended: list[str] = []
        slot = threading.Thread(
            target=lambda: ended.append(attempt.run(host.attempts, roots, JOB, draining=bool, tell=str))
        )
        seq = registry.events.last()
        slot.start()
        registry.hosts.ring(Host("a"), 2, lost_after_ms=1000)
        while not any(event.name == "ATTEMPT_CLAIMED" for event in registry.events.after(seq, block_ms=5000)):
            pass
        registry.verbs.pause(JOB)
        slot.join(30)
        assert ended == ["parked"]
        parked = registry.views.job(JOB)
        assert (str(parked.status), parked.claimed, parked.busy, parked.paused) == ("paused", False, False, True)

        assert registry.verbs.resume(JOB) == "running"
        registry.verbs.set_speed(JOB, 0)
        assert attempt.run(host.attempts, roots, JOB, draining=bool, tell=str) == "done"
        while JOB in {view.id for view in registry.views.jobs(registry.views.places(job.run)) if not view.ended}:
            finalizer.once()
        view = registry.views.job(JOB)
        assert (view.attempts, view.bytes["recopied"], view.error) == (2, 0, "")
        assert (tmp_path / "copy.img").read_bytes() == source.read_bytes()
