"""Prune after every committed run with a ``keep`` rule, in a thread of the coordinator, as hosts take time.

A due prune is recorded in the registry by the step that ended the run: a death, a delay or a repetition does no harm. A
failure to prune a backup is noted, and pruning is tried again after the next run.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Final

from blockjobs.ask.prune import PruneRequest, prune_summary
from blockjobs.daemons import loop
from blockjobs.model.errors import NoSuchRun
from blockjobs.model.ids import RunId
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry.doors import Registry

log = logging.getLogger(__name__)

LOOK: Final = 10.0  # seconds between two checks without a wake-up


class PruneThread:
    def __init__(self, registry: Registry, prune: PruneRequest) -> None:
        self._registry, self._prune = registry, prune
        self._quarantine = Quarantine()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="pruner", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Wake the thread after the end of a run."""
        self._wake.set()

    def _loop(self) -> None:
        loop.run_daemon("pruner", self._turn, self._stop)

    def _turn(self) -> None:
        """Prune after the due runs, and wait for more."""
        self._wake.clear()
        self.once()
        self._wake.wait(LOOK)

    def once(self) -> None:
        """Prune after every due run."""
        for run in self._registry.history.due():
            if self._stop.is_set():
                return
            self._quarantine.handle(f"run {run}: what it leaves to prune", partial(self._after, run))

    def _after(self, run: RunId) -> None:
        self._prune_after(run)
        self._registry.history.done(run)

    def _prune_after(self, run: RunId) -> None:
        try:
            name = self._registry.views.run(run).name
        except NoSuchRun:  # forgotten meanwhile
            return
        outcomes = [each for each in self._prune(name, after=run) if each.state != "kept"]
        if outcomes:
            log.info("run %s: committed; prune of earlier runs: %s", run, prune_summary(outcomes))
