"""The end of a copy worker that was told to stop while an attempt hangs in the kernel.

Attempts that go on park at a checkpoint, and are waited for.  One that hangs could be waited for as long as its file
system hangs: its process gets SIGKILL, which it obeys when its call returns, and the worker ends without it.  The lock
of its staging file keeps its successor out until then.
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
from blockworker.system.threads import vital

log = logging.getLogger(__name__)

LAST_COPIES: Final = 5.0  # seconds that attempts have to park, when the worker is stopped
_LOOK: Final = 0.5  # seconds between looks


def processes_to_give_up(marks: Mapping[int, Mark], waited: float) -> list[int]:
    """The processes that are given up, by what each one does: none while any still copies, or for the first seconds."""
    hanging = [pid for pid, mark in marks.items() if mark is Mark.HANGS]
    return hanging if waited >= LAST_COPIES and Mark.COPIES not in marks.values() else []


def follow_end(draining: Callable[[], bool], leave: Callable[[], None] = lambda: None) -> None:
    """From now on have this process end in time once it is ``draining``, whatever its children do.

    ``leave``: says the last word of this worker.
    """
    vital(lambda: _follow(draining, leave), "farewell").start()


def _follow(draining: Callable[[], bool], leave: Callable[[], None]) -> None:
    rest = threading.Event()
    while not draining():
        rest.wait(_LOOK)
    began = time.monotonic()
    while True:
        try:
            _end_without_what_hangs(time.monotonic() - began, leave)
        except (psutil.Error, OSError) as error:  # a child that ends this instant
            log.debug("one more look at the processes of this worker: %s", error)
        rest.wait(_LOOK)


def _end_without_what_hangs(waited: float, leave: Callable[[], None]) -> None:
    """End this process if it waits for nothing but attempts that hang; they get SIGKILL."""
    marks = {child.pid: mark_of(child.pid) for child in psutil.Process().children()}
    if given_up := processes_to_give_up(marks, waited):
        log.warning("the attempts of processes %s hang: this worker ends without them", given_up)
        for pid in given_up:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        leave()
        os._exit(0)  # Celery would wait for them
