"""Processes of the copy worker beyond its slots: one for each attempt that hangs, so that other jobs have their slots.

An attempt that hangs in the kernel keeps its process, and may keep it for days.  It moves nothing, so it takes nothing
from those that do.  As many more processes as there are slots are started at most, and they end when nothing hangs.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final

from blockjobs.process.quarantine import Quarantine
from blockworker.system.pidtable import PidTable
from blockworker.system.threads import end_process

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0  # seconds between looks
# A mark of each process: made before the fork, so that the main process sees what its children mark.
_MARKS: Final = PidTable(1)


class Mark(IntEnum):
    """What a process of the pool does."""

    IDLE = 0
    COPIES = 1
    HANGS = 2


def mark(doing: Mark) -> None:
    """Say what this process does."""
    _MARKS.note(os.getpid(), bytes([doing]))


def mark_of(pid: int) -> Mark:
    """What a process of the pool does."""
    return Mark(int.from_bytes(_MARKS.of(pid), "big"))


def count_hanging(pids: list[int]) -> int:
    """How many of these processes are said to hang."""
    return sum(mark_of(pid) is Mark.HANGS for pid in pids)


def has_free_slot(consumer: Any, slots: int) -> bool:
    """Whether a process of the worker's pool could take a message, or is missing."""
    processes = list(consumer.pool._pool._pool)  # noqa: SLF001
    return len(processes) < slots or any(mark_of(process.pid) is Mark.IDLE for process in processes)


def end_all(consumer: Any, why: str) -> None:
    """End the worker with all processes of its pool: what they do goes on as after any other death."""
    for process in list(consumer.pool._pool._pool):  # noqa: SLF001
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    end_process(why)


def follow(consumer: Any, slots: int) -> None:
    """From now on have the worker's pool grow and shrink with the attempts that hang; called by its event loop."""
    pool = consumer.pool
    aside = Quarantine()

    def look() -> None:
        more = slots + min(slots, count_hanging([process.pid for process in pool._pool._pool])) - pool.num_processes  # noqa: SLF001
        try:
            if more > 0:
                log.warning("attempts hang: %d processes more", more)
                pool.grow(more)
            elif more < 0:
                pool.shrink(-more)
        except ValueError:  # all are busy: the next look finds one that is not
            log.debug("no process can be ended yet")

    consumer.hub.call_repeatedly(INTERVAL, aside.part, "the look at processes that hang", look)
