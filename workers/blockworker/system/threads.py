"""Threads that a worker cannot do without: one that ends by an error which nobody expected ends its process.

A process without one of its threads looks alive and does only a part of its work, for ever.  One that has ended is
started anew by systemd or ``up``, and whatever it had begun is found and finished as after any other death.  Rule: a
thread that outlives one errand is made here.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

SOFTWARE: Final = 70  # the exit code of a process that ends for a fault in itself, as sysexits.h has it


def vital(target: Callable[[], object], name: str) -> threading.Thread:
    """A thread, not started yet, whose process ends when ``target`` raises; to return is its way to end alone."""

    def run() -> None:
        try:
            target()
        except BaseException as error:
            if sys.is_finalizing():  # the process ends anyway, and takes its modules from under the thread
                return
            end_process(f"thread {name} has ended: {type(error).__name__}: {error}", error)

    return threading.Thread(target=run, name=name, daemon=True)


def end_process(why: str, error: BaseException | None = None) -> None:
    """End this process now, and say why: waiting for anything might be waiting for what is gone."""
    try:
        log.critical("%s; process %d ends, to be started again", why, os.getpid(), exc_info=error)
        logging.shutdown()
    finally:
        os._exit(SOFTWARE)
