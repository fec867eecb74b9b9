"""A job's steps on its host, one behind the other, without a registry: what a driver does when nobody interferes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from blockjobs.model.errors import VolumeError
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.store.attempts import Claim
from blockworker.drivers.base import Driver, Opened, Work
from blockworker.roots import Roots


class Unhindered:
    """A claimed job that is never paused or cancelled; a trouble that its policy reports ends it."""

    def __init__(self, claim: Claim) -> None:
        self.spec, self.claim = claim.spec, claim
        self.checkpoints: list[Checkpoint] = []
        self._news = threading.Event()

    def point(self) -> None:
        return None

    def wait(self, seconds: float) -> None:
        self._news.wait(seconds)
        self._news.clear()

    def wake(self) -> None:
        self._news.set()

    def judge(self, trouble: VolumeError) -> None:
        raise trouble

    def ready(self) -> None:
        return None

    def diverging(self, **_: int) -> None:
        return None

    def checkpoint(self, durable: Checkpoint) -> None:
        self.checkpoints.append(durable)


def open_job(driver: Driver, roots: Roots, spec: JobSpec) -> tuple[Opened, dict[str, Any]]:
    """OPEN: what it found, and the same as the registry keeps it."""
    opened = driver.open(roots, spec, lambda: True)
    return opened, {"size": opened.size, "identity": opened.identity.to_list()}


def attempt(driver: Driver, roots: Roots, spec: JobSpec, kept: Mapping[str, Any]) -> tuple[Checkpoint, dict[str, Any]]:
    """The first attempt, to its end: what is durable, and the job's result."""
    return attempt_with(driver, roots, Unhindered(Claim(1, "a1", spec, kept, Checkpoint(), spec.speed, 1, 0, {})))


def attempt_with(
    driver: Driver, roots: Roots, job: Unhindered, *, interval: int = 0
) -> tuple[Checkpoint, dict[str, Any]]:
    """An attempt at a claimed job, to its end: what is durable, and the job's result.

    ``interval``: bytes between two durable checkpoints, where they are not to be as the product has them.
    """
    work: Work = driver.attached(roots, job)
    try:
        if interval:
            work._made.copy._interval = interval
        began, claim = time.time(), job.claim
        work.start(job)
        durable = work.durable
        assert durable is not None
        facts = {"attempts": claim.number, "token": claim.token, "started": began, "finished": time.time()}
        return durable, {**facts, "counts": {}, **work.result()}
    finally:
        work.close()


def prepare_job(driver: Driver, roots: Roots, spec: JobSpec) -> dict[str, Any]:
    """All steps up to PREPARE; the job's result."""
    _, kept = open_job(driver, roots, spec)
    durable, result = attempt(driver, roots, spec, kept)
    driver.prepare(roots, spec, durable, kept, result)
    return result


def carry_out(driver: Driver, roots: Roots, spec: JobSpec) -> dict[str, Any]:
    """All steps of a job that is committed; its result."""
    result = prepare_job(driver, roots, spec)
    driver.commit(roots, spec, 1)
    driver.clean(roots, spec)
    return result
