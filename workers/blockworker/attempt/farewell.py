"""The end of a copy worker that is asked to stop while an attempt hangs in the kernel.

Attempts that go on park at a checkpoint, and the worker waits for their end.  A wait for an attempt that hangs could
last as long as the attempt's file system hangs: the process gets SIGKILL, which takes effect once the call returns, and
the worker ends without the process.  The lock of the staging file keeps the next attempt out until then.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import psutil

from blockworker.attempt.spares import Mark, mark_of
from blockworker.system.threads import vital_thread

log = logging.getLogger(__name__)

LAST_COPIES: Final = 5.0  # seconds for attempts to park when the worker is stopped
_LOOK: Final = 0.5  # seconds between checks


def processes_to_give_up(marks: Mapping[int, Mark], waited: float) -> list[int]:
    """The processes to give up, by their marks: none while a process still copies, or before LAST_COPIES seconds."""
    hanging = [pid for pid, mark in marks.items() if mark is Mark.HANGS]
    return hanging if waited >= LAST_COPIES and Mark.COPIES not in marks.values() else []


def follow_end(draining: Callable[[], bool], leave: Callable[[], None] = lambda: None) -> None:
    """From now on, end this process in time once ``draining`` is true, even if children hang.

    ``leave``: sends the last message of this worker.
    """
    vital_thread(lambda: _end_when_draining(draining, leave), "farewell").start()


def _end_when_draining(draining: Callable[[], bool], leave: Callable[[], None]) -> None:
    rest = threading.Event()
    while not draining():
        rest.wait(_LOOK)
    began = time.monotonic()
    while True:
        try:
            _end_without_what_hangs(time.monotonic() - began, leave)
        except (psutil.Error, OSError) as error:  # a child is ending at this instant
            log.debug("one more look at the processes of this worker: %s", error)
        rest.wait(_LOOK)


def _end_without_what_hangs(waited: float, leave: Callable[[], None]) -> None:
    """End this process if the remaining attempts hang; the processes of hanging attempts get SIGKILL."""
    marks = {child.pid: mark_of(child.pid) for child in psutil.Process().children()}
    if given_up := processes_to_give_up(marks, waited):
        log.warning("the attempts of processes %s hang: this worker ends without them", given_up)
        for pid in given_up:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        leave()
        os._exit(0)  # Celery would wait for the children
