"""Vital threads of a worker: if a vital thread ends by an unexpected error, the process ends.

A process without a vital thread looks alive and does only a part of its work, for ever. A process that has ended is
started anew by systemd or ``up``, and unfinished work is found and finished as after any other death. Rule: every
thread that outlives an errand is made by this module.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

SOFTWARE: Final = 70  # the exit code of a process after an internal fault, as in sysexits.h


def vital_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Make a thread, not started yet, whose process ends when ``target`` raises; a return ends only the thread."""

    def run() -> None:
        try:
            target()
        except BaseException as error:
            if sys.is_finalizing():  # the process ends anyway, and unloads its modules under the thread
                return
            end_process(f"thread {name} has ended: {type(error).__name__}: {error}", error)

    return threading.Thread(target=run, name=name, daemon=True)


def end_process(why: str, error: BaseException | None = None) -> None:
    """End this process now, and log the reason: waiting for anything could be waiting for a dead thread."""
    try:
        log.critical("%s; process %d ends, to be started again", why, os.getpid(), exc_info=error)
        logging.shutdown()
    finally:
        os._exit(SOFTWARE)
