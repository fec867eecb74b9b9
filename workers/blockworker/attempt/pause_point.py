"""The pause point: the place where an attempt obeys orders.

Order of precedence at every pause point: lost lease, cancel, drain, lease in doubt, complete, pause.  The copy's lanes
never wait for Redis; the attempt's main thread stops and resumes the lanes through the driver's ``Work``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import redis

from blockjobs.model import errors
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.process.clock import seconds_since_boot
from blockjobs.registry.attempts import Attempts, Claim, Progress
from blockworker.attempt.control import ControlLine
from blockworker.attempt.error_policy import Action, action_on_error
from blockworker.copy.lanes import INTERNAL
from blockworker.drivers.base import Work

log = logging.getLogger(__name__)

LOOK: Final = 0.2  # seconds between checks of conditions that send no wake-up (drain, the lease)
PARK_AFTER: Final = 60.0  # seconds paused before a job gives its slot back
TELL_EVERY: Final = 2.0  # seconds between progress events for dashboards


class PausePoint:
    """A claimed job as its driver sees the job (``drivers.base.Job``), and the attempt's response to orders."""

    def __init__(
        self, attempts: Attempts, claim: Claim, draining: Callable[[], bool], tell: Callable[[str], None]
    ) -> None:
        self.spec: JobSpec = claim.spec
        self.claim = claim
        self.line = ControlLine(attempts, claim, self.progress, self._pulse)
        self._attempts, self._draining, self._tell, self._told = attempts, draining, tell, 0.0
        self._work: Work | None = None  # set once the work's volumes are open
        self._started = False
        self._judged = 0  # number of errors so far

    # --- the work ---------------------------------------------------------------------------------------

    def start(self, work: Work) -> None:
        """Obey on behalf of ``work``, and start the work after a first pause point."""
        self._work = work
        work.set_speed(self.line.orders.speed)
        self.point()
        self._started = True
        work.start(self)

    def progress(self) -> Progress:
        """The progress of the job; called by the control line's thread."""
        if self._work is None:
            return Progress(self.claim.offset, int(self.claim.opened.get("size", 0)), self.claim.counts)
        return self._work.progress()

    def _pulse(self) -> int:
        return self._work.pulse() if self._work is not None else 0

    # --- calls for drivers --------------------------------------------------------------------------------

    def point(self) -> None:
        work = self._work
        if work is not None:
            work.set_speed(self.line.orders.speed)
        self._unwind()
        if not self.line.safe:
            self._stand_still()
        if work is not None and (self.line.orders.complete or self.line.orders.soft):
            work.complete()
        if self.line.orders.pause:
            self._pause()
        self._show()

    def wait(self, seconds: float) -> None:
        self.line.wait(seconds)

    def wake(self) -> None:
        self.line.wake()

    def judge(self, trouble: errors.VolumeError) -> None:
        policy = self.spec.on_source_error if trouble.operation == "read" else self.spec.on_target_error
        if trouble.operation == INTERNAL:
            raise trouble
        action, io_status = action_on_error(policy, trouble.errno)
        log.warning("job %s: %s: %s", self.spec.id, trouble.text, action)
        self._judged += 1
        self.insist(
            lambda: self._attempts.error(
                self.claim,
                self._judged,
                operation="read" if trouble.operation == "read" else "write",
                action=action,
                io_status=io_status,
                text=trouble.text,
                errno=trouble.errno,
            )
        )
        if action is Action.REPORT:
            raise trouble
        if action is Action.STOP:
            self.insist(self.line.checkpoint)

    def ready(self) -> None:
        self.insist(lambda: self._attempts.ready(self.claim, self.progress()))

    def diverging(self, *, passes: int, dirty_rate: int, copy_rate: int) -> None:
        self.insist(
            lambda: self._attempts.diverging(self.claim, passes=passes, dirty_rate=dirty_rate, copy_rate=copy_rate)
        )

    def checkpoint(self, durable: Checkpoint) -> None:
        self.line.checkpoint(durable=durable)

    # --- obeying ------------------------------------------------------------------------------------------

    def _unwind(self) -> None:
        if self.line.lost:
            raise errors.LeaseLost(self.spec.id)
        if self.line.failure is not None:
            raise self.line.failure
        if self.line.orders.cancel:
            raise errors.JobCancelled
        if self._draining():
            self._give_back("drained")

    def _pause(self) -> None:
        """Quiesce, acknowledge, then flush; stay until the last hold is lifted, or give the slot back after a while."""
        running = self._running
        if running is not None:
            running.pause()
        self.line.quiet = True
        since, told, lost = seconds_since_boot(), False, False
        while not self.line.goes_on():
            lost = lost or self._lost()
            if not told:
                told = self._acknowledge()
                if running is not None:  # after the acknowledgement: a slow disk is no reason to look busy
                    running.drain()
            self.line.wait(LOOK)
            self._unwind()
            if self.line.orders.park or seconds_since_boot() - since > PARK_AFTER:
                self._give_back("parked")
        log.info("job %s: resumed", self.spec.id)
        if running is not None:
            running.resume()

    def _lost(self) -> bool:
        """Whether the work cannot continue, while the error policy keeps the job; raises an error that ends it."""
        try:
            if self._work is not None:
                self._work.check()
        except errors.VolumeError as trouble:
            self.judge(trouble)
            return True
        return False

    def _acknowledge(self) -> bool:
        try:
            self.line.checkpoint()
        except redis.RedisError:
            return False
        return True

    def _stand_still(self) -> None:
        """Stop writing while Redis does not answer and the lease may be over, until the lease is surely held again."""
        log.warning("job %s: no word from Redis: stopping", self.spec.id)
        running = self._running
        if running is not None:
            running.pause()
        log.warning("job %s: standing still until Redis answers", self.spec.id)
        while not self.line.safe:
            self.line.wait(LOOK)
            self._unwind()
        log.info("job %s: going on", self.spec.id)
        if running is not None:
            running.resume()

    def _give_back(self, why: str) -> None:
        """End the attempt but not the job: flush first; the slot is free once the files are closed (``release``)."""
        running = self._running
        if running is not None:
            running.pause()
            running.drain()
        raise errors.Parked(why)

    def release(self, why: str) -> None:
        """Give the slot back; to be called once the work is closed."""
        spec, claim = self.spec, self.claim
        self.insist(lambda: self._attempts.release(spec.id, spec.transaction, claim.token, claim.attempt, why=why))

    @property
    def _running(self) -> Work | None:
        """The work, once started."""
        return self._work if self._started else None

    def insist(self, call: Callable[[], object]) -> None:
        """Call until Redis answers; only a lost lease ends the loop.  ``call`` must be safe to repeat."""
        while True:
            try:
                call()
            except redis.RedisError as error:
                log.warning("job %s: Redis is away: %s", self.spec.id, error)
                self.line.wait(LOOK)
                if self.line.lost:
                    raise errors.LeaseLost(self.spec.id) from error
            else:
                return

    def _show(self) -> None:
        if seconds_since_boot() - self._told >= TELL_EVERY and self._running is not None:
            self._told = seconds_since_boot()
            now = self.progress()
            self._tell(f"{100 * now.offset // max(1, now.len)} % of {now.len >> 20} MiB")
