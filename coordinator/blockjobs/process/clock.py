"""A clock without jumps of the wall clock, the name of a boot, and periodic work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def seconds_since_boot() -> float:
    """Seconds since boot, including suspended time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_boot_id() -> str:
    """The kernel's name for this boot: process ids, device numbers and times since boot are valid in one boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Every:
    """True once every ``seconds``, the first time at once."""

    def __init__(self, seconds: float, clock: Callable[[], float] = seconds_since_boot) -> None:
        self._seconds, self._clock, self._next = seconds, clock, 0.0

    def __call__(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
