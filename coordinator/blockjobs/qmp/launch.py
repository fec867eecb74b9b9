"""Submit the jobs of a command and wait until the jobs run, as QEMU's commands return with running jobs."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from blockjobs.model.errors import Refused
from blockjobs.model.runs import RunPlan
from blockjobs.qmp.errors import QmpError
from blockjobs.qmp.fleet import Backend

PATIENCE: Final = 3.0  # seconds; jobs that take longer to open start after the reply
_OFF: Final = frozenset({"running", "paused", "concluded"})  # a failure is reported before ``concluded``


def launch_run(fleet: Backend, plan: RunPlan, *, refuse: bool = True) -> None:
    """Submit a run and wait a moment until the jobs are started.

    Raises:
        QmpError: a host refused a job at the opening of the volumes: no job of the command is left.  Without
            ``refuse``, as with QEMU's mirror, a refused job is a failed job.
    """
    seq = fleet.registry.events.last()
    fleet.coordinator.submit(plan)
    waiting: set[str] = {job.id for job in plan.jobs}
    give_up = time.monotonic() + PATIENCE
    while waiting and (left := give_up - time.monotonic()) > 0:
        for event in fleet.registry.events.after(seq, block_ms=max(1, int(left * 1000))):
            seq = event.seq
            if event.id not in waiting:
                continue
            if refuse and event.name == "BLOCK_JOB_COMPLETED" and "error" in event.fields:
                _undo_run(fleet, plan)
                raise QmpError(event.fields["error"])
            if event.name == "JOB_STATUS_CHANGE" and event.fields["status"] in _OFF:
                waiting.discard(event.id)


def _undo_run(fleet: Backend, plan: RunPlan) -> None:
    """Cancel and dismiss every job of a command, as a job could not be opened; other transactions' jobs go, too."""
    for job in plan.jobs:
        for verb in (fleet.registry.verbs.cancel, fleet.registry.verbs.dismiss):
            with suppress(Refused):
                verb(job.id)
