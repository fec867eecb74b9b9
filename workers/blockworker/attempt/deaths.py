"""Deaths of copy processes during an attempt, reported by the worker's main process: no other process knows the cause.

The watcher releases the job, whether the watcher or this report comes first; the report adds the cause of death and the
place of the log.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import redis

from blockjobs.model.ids import JobId
from blockjobs.process.spawn import describe_end
from blockjobs.registry.attempts import Attempts
from blockworker.system.pidtable import PidTable

log = logging.getLogger(__name__)

LOOK: Final = 1.0  # seconds between checks for dead processes
_UNIT: Final = re.compile(r"/([^/]+\.service)$", re.MULTILINE)
# The attempt of each process of the pool: shared before the fork, so that the main process sees the children's notes.
_RUNS: Final = PidTable(256)


def note_attempt(attempt: str, job: JobId) -> None:
    """Note the attempt that this process runs; the note stays after the attempt."""
    _RUNS.note(os.getpid(), f"{attempt} {job}".encode())


def attempt_of(pid: int) -> tuple[str, JobId] | None:
    """The last attempt that a process ran, and its job; None: the process never ran an attempt."""
    attempt, _, job = _RUNS.of(pid).decode().partition(" ")
    return (attempt, JobId(job)) if job else None


def follow_deaths(consumer: Any, attempts: Attempts) -> None:
    """From now on, report each process of the worker's pool that dies during an attempt."""
    pool = consumer.pool._pool  # noqa: SLF001 - Celery tells of a lost process ten seconds later
    pool.on_job_process_lost = _with_death_report(pool.on_job_process_lost, attempts)
    consumer.hub.call_repeatedly(LOOK, pool.maintain_pool)  # otherwise each five seconds


def _with_death_report(then: Callable[[Any, int, int], None], attempts: Attempts) -> Callable[[Any, int, int], None]:
    def on_job_process_lost(job: Any, pid: int, exitcode: int) -> None:
        if (runs := attempt_of(pid)) is not None:
            attempt, job_id = runs
            try:
                attempts.tell_death(job_id, attempt, describe_end(exitcode), find_log())
            except redis.RedisError as error:
                log.warning(
                    "job %s: the process of its attempt: %s; nobody was told: %s", job_id, describe_end(exitcode), error
                )
        then(job, pid, exitcode)

    return on_job_process_lost


def find_log() -> str:
    """The place of this process's log, in a form for people."""
    if os.environ.get("JOURNAL_STREAM"):
        unit = _UNIT.search(Path("/proc/self/cgroup").read_text(encoding="utf-8"))
        return f"journalctl -u {unit[1]}" if unit else "journalctl"
    try:
        target = os.readlink("/proc/self/fd/2")
    except OSError:
        return ""
    return target if target.startswith("/") and not target.startswith("/dev/") else ""
