"""An exception that nobody expected ends the attempt and its job, at once, with its class and its text."""

from __future__ import annotations

import errno
import threading

import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import VolumeError
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec, OnError, Orders
from blockjobs.registry.attempts import Claim, Progress
from blockworker import drivers
from blockworker.attempt.attempt import Attempt
from blockworker.attempt.pause_point import PausePoint
from blockworker.drivers.base import Work

SPEC = JobSpec(
    id=JobId("R.a"), transaction=TxnId("R"), run=RunId("R"), source=volumespec.parse_volume("h:/s"),
    target=volumespec.parse_volume("h:/t"), on_source_error=OnError.IGNORE, on_target_error=OnError.IGNORE,
)  # fmt: skip


class Registry:
    """What an attempt asks of the registry, which always answers; ``end`` is what the attempt told at last."""

    def __init__(self):
        self.end, self.woken = None, threading.Event()

    def checkpoint(self, claim, progress, *, durable=None, quiet=False, hangs=None):
        return Orders()

    def error(self, claim, number, **about):
        pass

    def wait(self, job, seconds):
        return self.woken.wait(min(seconds, 0.05))

    def knock(self, job):
        self.woken.set()

    def finish(self, claim, progress, *, durable, result, errno=0, text=""):
        self.end = errno, text


class Buggy(Work):
    """Work with a bug in one of its methods."""

    def __init__(self, where):
        self.where = where

    def _maybe(self, name):
        if name == self.where:
            raise KeyError("base:allocation")

    def start(self, job):
        self._maybe("start")
        if self.where == "pulse":
            for _ in range(500):
                job.wait(0.02)
                job.point()
            raise AssertionError("nobody was told that the line had ended")
        if self.where == "a lane":
            job.judge(VolumeError(errno.EIO, "internal error: KeyError('x')", operation="internal", offset=0, length=1))

    def progress(self):
        self._maybe("progress")
        return Progress(1, 2, {})

    def pulse(self):
        self._maybe("pulse")
        return 0

    def result(self):
        self._maybe("result")
        return {}

    @property
    def durable(self):
        self._maybe("durable")
        return Checkpoint()


class BuggyDriver:
    def __init__(self, where):
        self.where = where

    def attached(self, roots, job):
        if self.where == "attached":
            raise KeyError("base:allocation")
        return Buggy(self.where)


@pytest.mark.parametrize("where", ["attached", "start", "progress", "pulse", "result", "durable", "a lane"])
def test_wherever_the_bug_is_the_job_fails_with_it(site, monkeypatch, where):
    monkeypatch.setattr(drivers, "find_driver", lambda *_: BuggyDriver(where))
    registry = Registry()
    claim = Claim(1, "a1", SPEC, {"size": 2}, Checkpoint(), 0, 1, 0, {})
    point = PausePoint(registry, claim, lambda: False, lambda _: None)
    how = Attempt(registry, site.roots, claim, point).run()
    code, text = registry.end
    assert code == errno.EIO
    assert text.startswith("internal error: KeyError(")
    assert how == f"failed: {text}"


def test_without_a_bug_it_is_done(site, monkeypatch):
    monkeypatch.setattr(drivers, "find_driver", lambda *_: BuggyDriver(""))
    registry = Registry()
    claim = Claim(1, "a1", SPEC, {"size": 2}, Checkpoint(), 0, 1, 0, {})
    assert (
        Attempt(registry, site.roots, claim, PausePoint(registry, claim, lambda: False, lambda _: None)).run() == "done"
    )
    assert registry.end == (0, "")
