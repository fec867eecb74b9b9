"""Extra processes of the copy worker, a process for each hanging attempt, so that every slot stays usable.

An attempt that hangs in the kernel keeps its process, possibly for days, and uses no bandwidth meanwhile.  At most as
many extra processes as there are slots are started, and the extra processes end when no attempt hangs.
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

INTERVAL: Final = 1.0  # seconds between checks
# The mark of each process: shared before the fork, so that the main process sees its children's marks.
_MARKS: Final = PidTable(1)


class Mark(IntEnum):
    """The state of a process of the pool."""

    IDLE = 0
    COPIES = 1
    HANGS = 2


def mark_process(doing: Mark) -> None:
    """Mark this process with its state."""
    _MARKS.note(os.getpid(), bytes([doing]))


def mark_of(pid: int) -> Mark:
    """The state of a process of the pool."""
    return Mark(int.from_bytes(_MARKS.of(pid), "big"))


def count_hanging(pids: list[int]) -> int:
    """The number of processes that are marked as hanging."""
    return sum(mark_of(pid) is Mark.HANGS for pid in pids)


def has_free_slot(consumer: Any, slots: int) -> bool:
    """Whether a process of the worker's pool can take a message, or is missing."""
    processes = list(consumer.pool._pool._pool)  # noqa: SLF001
    return len(processes) < slots or any(mark_of(process.pid) is Mark.IDLE for process in processes)


def end_all(consumer: Any, why: str) -> None:
    """End the worker with every process of its pool; the attempts are recovered as after any death."""
    for process in list(consumer.pool._pool._pool):  # noqa: SLF001
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    end_process(why)


def follow_hanging_attempts(consumer: Any, slots: int) -> None:
    """From now on, let the worker's pool grow and shrink with the hanging attempts; called by the pool's event loop."""
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
        except ValueError:  # every process is busy: a later check finds an idle process
            log.debug("no process can be ended yet")

    consumer.hub.call_repeatedly(INTERVAL, aside.part, "the look at processes that hang", look)
