"""A speed limit that can be changed during a wait.

The account is a debt in bytes: a caller without debt may go on and owes its bytes. One chunk may overrun the limit, and
the next chunk pays for the overrun. An idle time is worth one slice, never more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

SLICE: Final = 0.05  # seconds; half of QEMU's: all copies of a budget may make up for the same idle time at once
MOMENT: Final = 0.025  # seconds: paced bytes go in parts that the limit allows in this time
LEAST: Final = 1 << 16  # bytes of a part
SHORTEST: Final = 1e-9  # seconds: a shorter wait counts as none; no clock could show its end
LOWEST: Final = 1 << 18  # bytes/s; below, a chunk in parts would take for ever, and no progress could be seen


class Account:
    """The debt, as a function of the time that is handed in. ``speed`` in bytes/s, 0: no limit."""

    def __init__(self, speed: int = 0) -> None:
        self.speed = speed
        self._debt = 0.0
        self._at = float("-inf")

    def delay(self, now: float, n: int) -> float:
        """0.0: ``n`` bytes may go and are owed from now on. Else: seconds until the next call is useful."""
        self._pay(now)
        if self.speed and self._debt > SHORTEST * self.speed:
            return self._debt / self.speed
        if self.speed:
            self._debt += n
        return 0.0

    def until(self, now: float, left: int) -> float:
        """Seconds until at most ``left`` bytes are owed; 0.0: no wait is needed."""
        self._pay(now)
        owed = self._debt - left
        return owed / self.speed if self.speed and owed > SHORTEST * self.speed else 0.0

    def change(self, now: float, speed: int) -> None:
        """Change the limit; the debt stays, and is paid at the new speed."""
        self._pay(now)
        self.speed = speed
        if not speed:
            self._debt = 0.0

    def _pay(self, now: float) -> None:
        passed = min(max(now - self._at, 0.0), 1e9)
        self._at = max(self._at, now)
        self._debt = max(self._debt - passed * self.speed, -SLICE * self.speed)


class Throttle:
    """The account, and the waiting. Any thread may call any method."""

    def __init__(self, speed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._account = Account(speed)
        self._changed = threading.Condition()
        self._interrupted = False

    @property
    def speed(self) -> int:
        return self._account.speed

    @speed.setter
    def speed(self, speed: int) -> None:
        with self._changed:
            if speed != self._account.speed:
                self._account.change(self._clock(), speed)
                self._changed.notify_all()

    def take(self, n: int) -> bool:
        """Wait until ``n`` bytes may go. False: interrupted, and nothing was taken."""
        with self._changed:
            while not self._interrupted:
                delay = self._account.delay(self._clock(), n)
                if not delay:
                    return True
                self._changed.wait(delay)
            return False

    @property
    def part(self) -> int:
        """Bytes written at once, small enough to avoid a burst per chunk under a low limit; 0: any number."""
        return max(LEAST, int(MOMENT * self.speed) // LEAST * LEAST) if self.speed >= LOWEST else 0

    def pace(self, left: int) -> None:
        """Wait until the debt drops to ``left`` bytes, so that a piece is written in parts without a burst.

        Returns at once after an interrupt: a waiter for the end of a piece waits for no limit.
        """
        with self._changed:
            while not self._interrupted and (delay := self._account.until(self._clock(), left)):
                self._changed.wait(delay)

    def interrupt(self) -> None:
        """Wake every waiter, and refuse new waiters, until ``proceed``."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def proceed(self) -> None:
        with self._changed:
            self._interrupted = False
