"""An attempt at a job: claim the job, let the driver work, and report the end."""

from __future__ import annotations

import errno
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import redis

from blockjobs.model import errors
from blockjobs.model.ids import JobId
from blockjobs.model.jobs import Checkpoint
from blockjobs.process.clock import read_boot_id, seconds_since_boot
from blockjobs.registry.attempts import LEASE, Attempts, Claim, Progress, Who
from blockjobs.registry.connection import is_absence
from blockworker import drivers
from blockworker.attempt.control import MARGIN
from blockworker.attempt.deaths import note_attempt
from blockworker.attempt.pause_point import PausePoint
from blockworker.drivers.base import Work
from blockworker.host.roots import Roots
from blockworker.records.folder import LockBusy
from blockworker.system.processname import named_after
from blockworker.system.processstart import read_start
from blockworker.targets.staged import StagingBusy

T = TypeVar("T")
log = logging.getLogger(__name__)

PATIENCE: Final = LEASE - MARGIN  # seconds for which a claim is retried: the lease of a lost answer still holds
AGAIN: Final = 0.2  # seconds between two tries of a request


def run_attempt(
    attempts: Attempts, roots: Roots, job_id: JobId, *, draining: Callable[[], bool], tell: Callable[[str], None]
) -> str:
    """Claim and run a job until the job is done, fails, is cancelled, or gives its slot back; return the outcome."""
    who = Who(uuid.uuid4().hex, os.getpid(), read_start(os.getpid()), read_boot_id())
    note_attempt(who.attempt, job_id)
    with named_after(who.attempt):
        claim = ask_surely(f"job {job_id}: its claim", lambda: attempts.claim(job_id, who), PATIENCE)
        if isinstance(claim, str):
            log.info("job %s: not claimed: %s", job_id, claim)
            return f"not claimed: {claim}"
        log.info("job %s: attempt %d claimed with token %d", job_id, claim.number, claim.token)
        how = Attempt(attempts, roots, claim, PausePoint(attempts, claim, draining, tell)).run()
        log.info("job %s: attempt %d %s", job_id, claim.number, how)
        return how


def ask_surely(what: str, question: Callable[[], T], patience: float) -> T:
    """Ask Redis until an answer comes; ``question`` may be asked twice.

    Raises redis.RedisError: no answer came for ``patience`` seconds.  If the claim was made nonetheless, the watcher
    releases the claim, because this process no longer bears the name of the attempt.
    """
    until = seconds_since_boot() + patience
    while True:
        try:
            return question()
        except redis.RedisError as error:
            if not is_absence(error) or seconds_since_boot() >= until:
                raise
            log.warning("%s was not answered, and is asked for again: %s", what, error)
            time.sleep(AGAIN)


class Attempt:
    def __init__(self, attempts: Attempts, roots: Roots, claim: Claim, point: PausePoint) -> None:
        self._attempts, self._roots, self._claim, self._point = attempts, roots, claim, point
        self._work: Work | None = None
        self._began = datetime.now(UTC)

    def run(self) -> str:
        self._point.line.start()
        try:
            return self._end()
        except errors.LeaseLost:
            return "lost its lease"
        finally:
            self._point.line.close()

    def _end(self) -> str:
        try:
            code, text = self._outcome()
        except errors.Parked as why:  # the files are closed by now: the next attempt finds the files free
            self._point.release(str(why))
            return str(why)
        code, text = self._finish(code, text)
        return f"failed: {text}" if code else "done"

    def _outcome(self) -> tuple[int, str]:
        """The job's final errno and text; 0 for success."""
        spec = self._claim.spec
        try:
            driver = drivers.find_driver(spec.type, self._roots.config.name)
            self._work = driver.attached(self._roots, self._point)
            with closing(self._work):
                self._point.start(self._work)
        except (StagingBusy, LockBusy) as busy:  # an earlier attempt is not quite gone
            log.warning("job %s: %s", spec.id, busy)
            raise errors.Parked("drained") from busy
        except errors.JobCancelled:
            return errno.ECANCELED, errors.ECANCELED_TEXT
        except errors.JobFailed as failed:
            log.warning("job %s: %s", spec.id, failed.text)
            return self._unless_cancelled(failed.errno, failed.text)
        except OSError as error:
            log.exception("job %s: an error nobody expected", spec.id)
            return self._unless_cancelled(
                error.errno or errno.EIO, f"{error.filename or spec.target.text}: {error.strerror}"
            )
        except (errors.BlockjobsError, redis.RedisError):
            raise  # the error decides how the attempt ends
        except Exception as error:
            log.exception("job %s: an error nobody expected", spec.id)
            return errno.EIO, errors.unexpected_error_text(error)
        return 0, ""

    def _unless_cancelled(self, code: int, text: str) -> tuple[int, str]:
        """Report a cancelled job as cancelled if its volumes could not be opened.

        The abort was removing the files of the volumes: the failure is no error of the job.
        """
        if self._work is None:
            self._point.insist(self._point.line.checkpoint)
            if self._point.line.orders.cancel:
                return errno.ECANCELED, errors.ECANCELED_TEXT
        return code, text

    def _finish(self, code: int, text: str) -> tuple[int, str]:
        """Report the end of the job; a bug in the report makes the job fail."""
        claim = self._claim
        try:
            progress, told, durable = self._reached()
        except Exception as error:
            log.exception("job %s: an error nobody expected", claim.spec.id)
            progress, told, durable = Progress(claim.offset, int(claim.opened.get("size", 0)), claim.counts), {}, None
            code, text = code or errno.EIO, text or errors.unexpected_error_text(error)
        result: dict[str, Any] = {
            "attempts": claim.number, "token": claim.token,
            "started": self._began.timestamp(), "finished": datetime.now(UTC).timestamp(),
            "counts": dict(progress.counts or {}), **told,
        }  # fmt: skip
        self._point.insist(
            lambda: self._attempts.finish(claim, progress, durable=durable, result=result, errno=code, text=text)
        )
        return code, text

    def _reached(self) -> tuple[Progress, Mapping[str, Any], Checkpoint | None]:
        """Progress, the values for ``prepare``, and the durable ranges."""
        if self._work is None:
            return self._point.progress(), {}, None
        return self._point.progress(), self._work.result(), self._work.durable
