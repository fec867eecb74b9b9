"""The time limits of runs: deadlines, the end of waiting after an error, turns in the queue, and automatic retries.

Every time limit is in the registry before the limit is due, and thus outlives this process.  Every effect is a script
without effect the second time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from blockjobs.model.ids import RunId
from blockjobs.model.states import Status
from blockjobs.registry.doors import Registry
from blockjobs.registry.each import Each, call_unguarded
from blockjobs.registry.events import Event

log = logging.getLogger(__name__)


@dataclass
class Deadlines:
    registry: Registry

    def heard(self, news: Iterable[Event], each: Each = call_unguarded) -> None:
        """Note jobs stopped by an error, drop the limits of concluded jobs, and launch the queued runs."""
        runs: list[RunId] = []
        jobs: dict[str, None] = {}
        for event in news:
            match event.name:
                case "BLOCK_JOB_ERROR" if event.fields.get("action") == "stop":
                    each(f"job {event.id}: its hold timeout", partial(self.registry.timeouts.stopped, event))
                    jobs.pop(event.id, None)  # the concluded job was an earlier job or an earlier try
                case "JOB_STATUS_CHANGE" if event.fields.get("status") == Status.CONCLUDED:
                    jobs[event.id] = None
                case "RUN_ENDED":
                    runs.append(RunId(event.id))
        self.registry.timeouts.over(runs, jobs)
        if runs:
            self.launch(each)

    def launch(self, each: Each = call_unguarded) -> None:
        for run in self.registry.submit.advance(each):
            log.info("run %s: leaves the queue and starts", run)

    def look(self, now: int, each: Each = call_unguarded) -> None:
        """Carry out the due limits; ``now``: milliseconds by the steady clock."""
        for run, why in self.registry.timeouts.late(now, each):
            log.warning("run %s: %s", run, why)
        for txn in self.registry.retries.begin(now, each):
            log.info("transaction %s: the next try begins", txn)
        for job in self.registry.timeouts.waited(now, each):
            log.warning("job %s: not resumed within hold-timeout: the job is given up", job)
