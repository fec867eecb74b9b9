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
from typing import Final

import psutil

from blockworker.spares import Mark, mark_of

log = logging.getLogger(__name__)

LAST_COPIES: Final = 5.0  # seconds that attempts have to park, when the worker is stopped
_LOOK: Final = 0.5  # seconds between looks


def processes_to_give_up(marks: Mapping[int, Mark], waited: float) -> list[int]:
    """The processes that are given up, by what each one does: none while any still copies, or for the first seconds."""
    hanging = [pid for pid, mark in marks.items() if mark is Mark.HANGS]
    return hanging if waited >= LAST_COPIES and Mark.COPIES not in marks.values() else []


def follow_end(draining: Callable[[], bool]) -> None:
    """From now on have this process end in time once it is ``draining``, whatever its children do."""
    threading.Thread(target=_follow, args=(draining,), name="farewell", daemon=True).start()


def _follow(draining: Callable[[], bool]) -> None:
    rest = threading.Event()
    while not draining():
        rest.wait(_LOOK)
    began, me = time.monotonic(), psutil.Process()
    while True:
        marks = {child.pid: mark_of(child.pid) for child in me.children()}
        if given_up := processes_to_give_up(marks, time.monotonic() - began):
            log.warning("the attempts of processes %s hang: this worker ends without them", given_up)
            for pid in given_up:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)  # Celery would wait for them
        rest.wait(_LOOK)
