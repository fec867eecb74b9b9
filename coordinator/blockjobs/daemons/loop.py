"""A daemon's frame: go round until told to stop, and outlive every absence of Redis and every error of a turn."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import redis

from blockjobs.process.clock import Every
from blockjobs.process.watchdog import report_alive, report_interval, report_ready

log = logging.getLogger(__name__)

REST: Final = 5.0  # seconds after a failed turn


def stop_on_signals() -> threading.Event:
    """An event set by SIGTERM and SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def run_daemon(name: str, once: Callable[[], None], stop: threading.Event) -> None:
    """Call ``once`` until ``stop`` is set; ``once`` blocks by itself while idle.

    The parts of a turn catch errors themselves; an error that comes out nevertheless is logged, and the next turn
    follows. The supervisor is told after the first turn that this process serves, and after later turns that the
    process lives.
    """
    away, serves = False, False
    report_due = Every(report_interval() or math.inf)
    log.info("%s: started", name)
    while not stop.is_set():
        try:
            once()
            if not serves:
                report_ready()
            serves = True
            if away:
                log.info("%s: Redis is back", name)
            away = False
        except redis.RedisError as error:
            if not away:
                log.warning("%s: Redis is away: %s", name, error)
            away = True
            stop.wait(0.5)
        except Exception:
            log.exception("%s: unexpected error; next try in %.0f s", name, REST)
            stop.wait(REST)
        if report_due():
            report_alive()
    log.info("%s: stopped", name)


@contextmanager
def run_beside(name: str, once: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Run the loop in a thread during the context; the thread has stopped when the context ends."""
    thread = threading.Thread(target=run_daemon, args=(name, once, stop), name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
