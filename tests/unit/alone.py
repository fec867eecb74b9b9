"""Attempts of a job without a registry: nobody gives orders, and nobody is told anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from carried import Unhindered

from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.registry.attempts import Claim
from blockworker.drivers.backup import Backup
from blockworker.drivers.base import Driver
from blockworker.host.roots import Roots


class Alone(Unhindered):
    """One attempt at a job: OPEN, CUT, and its volumes open.  ``between`` is called then, before anything is read."""

    def __init__(self, roots: Roots, spec: JobSpec, driver: Driver | None = None) -> None:
        self.roots, self.driver = roots, driver or Backup()
        opened = self.driver.open(roots, spec, lambda: True)
        self.opened = opened.to_dict()
        if opened.cut:
            self.opened["cut"] = self.driver.cut(roots, spec, self.opened).to_dict()
        super().__init__(Claim(1, "attempt", spec, self.opened, Checkpoint(), spec.speed, 1, 0, {}))
        self.between: Callable[[], object] = lambda: None
        self.work = self.driver.attached(roots, self)

    def run(self) -> dict[str, Any]:
        """Copy to the end; what PREPARE is given of it."""
        began = time.time()
        with closing(self.work):
            self.work.set_speed(0)
            self.between()
            self.work.start(self)
        facts = {"attempts": 1, "token": 1, "started": began, "finished": time.time(), "counts": {}}
        return {**facts, **self.work.result()}

    def publish(self) -> None:
        """Copy to the end, prepare and commit."""
        result = self.run()
        assert self.work.durable is not None
        self.driver.prepare(self.roots, self.spec, self.work.durable, self.opened, result)
        self.driver.commit(self.roots, self.spec, 1)
