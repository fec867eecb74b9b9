"""The control line: a thread that sends an attempt's progress, renews the lease and receives the attempt's orders.

The thread blocks on the job's wake key until a knock comes or a checkpoint is due, and then makes a checkpoint.  The
copy never calls Redis, and reads ``orders`` in memory.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import redis

from blockjobs.model.errors import LeaseLost
from blockjobs.model.jobs import Checkpoint, Orders
from blockjobs.process.clock import seconds_since_boot
from blockjobs.registry.attempts import LEASE, Attempts, Claim, Progress
from blockworker.attempt import spares
from blockworker.attempt.spares import Mark
from blockworker.copy.digests import CHUNK
from blockworker.system.standstill import Watch
from blockworker.system.threads import vital_thread

log = logging.getLogger(__name__)

FIRST: Final = 0.5  # seconds to the first checkpoint; the interval then doubles up to INTERVAL
INTERVAL: Final = 2.0  # seconds between checkpoints without a knock
HANGS_AFTER: Final = 10.0  # seconds that a call may last before the call's path is reported as hanging
MARGIN: Final = 3.0  # seconds before the end of the lease at which the copy stops


class ControlLine:
    """Progress, lease and orders of an attempt; ``wait`` returns when there is news for the copy.

    ``progress`` is called at each checkpoint.  ``pulse``: a number that changes while the work is alive.  ``quiet``:
    the copy writes nothing, and every checkpoint reports quiet: a hold that directly follows a lifted hold is
    acknowledged too.
    """

    def __init__(
        self, attempts: Attempts, claim: Claim, progress: Callable[[], Progress], pulse: Callable[[], int]
    ) -> None:
        self.orders = Orders(speed=claim.speed)
        self.lost = self.quiet = False
        self.failure: Exception | None = None  # the error that ended the thread, and has to end the attempt
        self._attempts, self._claim, self._progress = attempts, claim, progress
        self._pulse = pulse
        self._renewed = seconds_since_boot()
        self._news = threading.Event()
        self._stop = threading.Event()
        self._mark, self._moved = -1, seconds_since_boot()
        self._looked_at, self._watch = -1, Watch(HANGS_AFTER)
        self._hangs: tuple[str, float] | None = None
        self._one = threading.Lock()  # one checkpoint at a time, so that orders never go back in time
        self._thread = vital_thread(self._follow, f"line-{claim.spec.id}")

    def start(self) -> None:
        spares.mark_process(Mark.COPIES)
        self._thread.start()

    def close(self) -> None:
        """End the thread; its blocking wait ends at once if Redis answers, otherwise at the client's timeout."""
        self._stop.set()
        try:
            self._attempts.knock(self._claim.spec.id)
        except redis.RedisError:
            log.debug("job %s: the line ends by itself", self._claim.spec.id)
        self._thread.join(INTERVAL + 2.0)
        spares.mark_process(Mark.IDLE)

    def wake(self) -> None:
        """End the current ``wait``: called by the copy."""
        self._news.set()

    def wait(self, seconds: float) -> None:
        self._news.wait(seconds)
        self._news.clear()

    @property
    def safe(self) -> bool:
        """Whether the lease surely still holds, by this host's clock."""
        return seconds_since_boot() < self._renewed + LEASE - MARGIN

    def goes_on(self) -> bool:
        """Whether no hold is left; if so, no later checkpoint reports quiet, not even a checkpoint in preparation."""
        with self._one:
            self.quiet = self.orders.pause
            return not self.quiet

    def checkpoint(self, *, durable: Checkpoint | None = None) -> Orders:
        """Send progress, receive orders.

        Raises:
            LeaseLost: the job belongs to another attempt now.
            redis.RedisError: no answer; whether the call took effect is unknown, and does not matter.
        """
        with self._one:
            sent = seconds_since_boot()
            try:
                orders = self._attempts.checkpoint(
                    self._claim, self._progress(), durable=durable, quiet=self.quiet, hangs=self._hangs
                )
            except LeaseLost:
                self.lost = True
                self._news.set()
                raise
            self._renewed = sent
            if orders != self.orders:
                self.orders = orders
                self._news.set()
            return orders

    def _notice_hanging(self) -> None:
        """Check for a call of this attempt that hangs, unless the work has advanced since the last check."""
        pulse = self._pulse()
        if pulse != self._looked_at:
            self._looked_at, self._watch, self._hangs = pulse, Watch(HANGS_AFTER), None
        else:
            standing = next(iter(self._watch.look([os.getpid()])), None)
            self._hangs = None if standing is None else (standing.path, standing.seconds)
        spares.mark_process(Mark.COPIES if self._hangs is None else Mark.HANGS)

    def _end_if_stalled(self) -> None:
        """End this process if the copy stands still for longer than the job allows: a call hangs in the kernel.

        The watcher then releases the job, and reports a process that cannot die (a dead disk).
        """
        limit, pulse, speed = self._claim.spec.stall_limit, self._pulse(), self.orders.speed
        slow = 0 < speed < 2 * CHUNK / limit  # a single chunk may take as long as the limit
        if pulse != self._mark or self.orders.pause or slow:
            self._mark, self._moved = pulse, seconds_since_boot()
        elif seconds_since_boot() - self._moved > limit:
            log.error("job %s: no progress for %d s: ending this process", self._claim.spec.id, limit)
            with suppress(redis.RedisError):  # the process ends, whether or not the report arrives
                self._attempts.stalled(self._claim, limit)
            os.kill(os.getpid(), signal.SIGKILL)

    def _follow(self) -> None:
        due = FIRST
        while not self._stop.is_set():
            try:
                self._attempts.wait(self._claim.spec.id, due)
                due = min(2 * due, INTERVAL)
                if self._stop.is_set():
                    return
                self._notice_hanging()
                self.checkpoint()
                self._end_if_stalled()
            except LeaseLost:
                return
            except Exception as error:
                if not isinstance(error, redis.RedisError):  # else the job would only lose its lease
                    log.exception("job %s: an error nobody expected", self._claim.spec.id)
                    self.failure = error
                    self._news.set()
                    return
                log.warning("job %s: Redis is away: %s", self._claim.spec.id, error)
                self._stop.wait(0.2)
