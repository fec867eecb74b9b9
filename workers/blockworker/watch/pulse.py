"""A worker that beats and takes no message: the worker notices the fault itself, and ends, to be started again.

The consumer of messages can be dead while the process lives: the connection to the broker is cut without an error, a
process of the pool is frozen, a thread waits for ever. If messages wait, none was taken for a while and a process of
the worker is free, the worker sends a message to itself (a pulse), and another pulse at every later check. A taken
pulse proves the worker well: the waiting message was lost or has just come. Only pulses never taken prove the consumer
dead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

import redis

from blockjobs.process.clock import seconds_since_boot
from blockworker.system.sharedtime import SharedTime
from blockworker.system.threads import end_process, vital_thread

log = logging.getLogger(__name__)

LOOK: Final = 10.0  # seconds between checks
PATIENCE: Final = 35.0  # seconds for pulses: longer than Celery rests between two tries to reach a broker


class LastTaken:
    """Time of the last taken message. To be made before the worker forks: its children take messages."""

    def __init__(self) -> None:
        self._at = SharedTime()
        self.note()

    def note(self) -> None:
        """Note that a message was taken now."""
        self._at.write(seconds_since_boot())

    @property
    def at(self) -> float:
        """The time by CLOCK_BOOTTIME."""
        return self._at.read()


class Pulse:
    """Checks one worker. ``waits``: whether messages for this worker wait; raises redis.RedisError.

    ``send``: sends a pulse. ``free``: whether a process of this worker could take a message. ``end``: ends this
    process, and logs the reason.
    """

    def __init__(self, taken: LastTaken, waits: Callable[[], bool], send: Callable[[], None]) -> None:
        self._taken, self._waits, self._send = taken, waits, send
        self.free: Callable[[], bool] = lambda: True
        self.end: Callable[[str], None] = end_process
        self._waited_since: float | None = None  # messages wait and nothing was taken
        self._sent_at: float | None = None

    def start(self) -> None:
        """Check from now on; this process ends if no pulse is taken."""
        vital_thread(self._follow, "pulse").start()

    def look(self) -> str:
        """Check once; return why this worker has to end, or ""."""
        try:
            return self._look()
        except redis.RedisError as error:
            log.warning("nobody knows whether messages wait: Redis is away: %s", error)
            self._begin_anew()
            return ""

    def _look(self) -> str:
        now = seconds_since_boot()
        since = self._waited_since
        waits = self.free() and (self._sent_at is not None or self._waits())
        if not waits or (since is not None and self._taken.at >= since):
            self._begin_anew()
        elif since is None:
            self._waited_since = now
        elif self._sent_at is None:
            log.info("messages wait, and none was taken for %.0f s: this worker sends one to itself", now - since)
            self._send()
            self._sent_at = now
        elif now - self._sent_at > PATIENCE:
            self._waits()  # Redis answers: it is this worker that does not
            return f"no message was taken for {now - since:.0f} s, although some wait and this worker beats"
        else:
            self._send()  # a single one may be lost
        return ""

    def _begin_anew(self) -> None:
        """Forget the waiting messages: none is known to wait."""
        self._waited_since = self._sent_at = None

    def _follow(self) -> None:
        rest = threading.Event()
        while not rest.wait(LOOK):
            if why := self.look():
                self.end(why)
