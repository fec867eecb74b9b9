"""Durable checkpoints: a thread flushes copied bytes and records the ranges, while the lanes go on.

Order: data, then digests, then the registry under the token.  At most one interval is ever copied twice, because the
lanes wait while a finished interval is not recorded.
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Final, Self

import redis

from blockjobs.model.errors import JobFailed, LeaseLost
from blockjobs.model.jobs import Checkpoint
from blockworker.copy.engine import Copy
from blockworker.drivers.base import Job
from blockworker.system.threads import vital_thread

log = logging.getLogger(__name__)

LOOK: Final = 0.5  # seconds between checks for a flush due by the clock; a flush due by bytes is woken for


class Durability:
    def __init__(self, copy: Copy, job: Job, staging: str) -> None:
        self.durable: Checkpoint | None = None
        self.copy, self._job, self._staging = copy, job, staging
        self._failure: Exception | None = None
        self._one = threading.Lock()
        self._stop = threading.Event()
        self._news = threading.Event()
        self._thread = vital_thread(self._follow, "durability")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self.wake()
        self._thread.join()

    def wake(self) -> None:
        """Check for a due flush now: called when the copy has made progress."""
        self._news.set()

    def flush(self) -> None:
        """Make finished pieces durable, and record the ranges (if Redis does not answer, with the next flush).

        Raises:
            JobFailed: the flush failed.  The failure is final: a flush is never retried on the same descriptor.
            LeaseLost: the job belongs to another attempt now.
        """
        self.check()
        with self._one:
            ranges = self.copy.flush()
            self.durable = point = Checkpoint(self._staging, ranges, self.copy.salvaged_durable)
            try:
                self._job.checkpoint(point)
            except redis.RedisError as error:
                log.warning("durable, but not recorded yet: %s", error)
                return
            self.copy.recorded(ranges)

    def check(self) -> None:
        """Raise the error that ended the thread."""
        if self._failure is not None:
            raise self._failure

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._news.wait(LOOK)
            self._news.clear()
            try:
                if self.copy.flush_due:
                    self.flush()
            except Exception as error:
                # Unexpected errors too: the lanes would wait for ever for a flush that never comes.
                if not isinstance(error, JobFailed | LeaseLost):
                    log.exception("making the copy durable failed")
                self._failure = error
                self._job.wake()
                return
