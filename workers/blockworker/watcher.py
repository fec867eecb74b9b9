"""The watcher: knows the attempts of its host, releases the dead ones, and kills those whose end was ordered;
and closes and sweeps what is left of transactions that are settled.

A thread of the steps worker's main process: it needs no slot, so a takeover never waits for one that a zombie
holds.  Only after the old process is gone is its job released: then its flock is free, and the fence is real.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import psutil
import redis

from blockjobs.daemons.loop import Every, boottime
from blockjobs.model.hanging import HangingPath
from blockjobs.model.ids import Host, JobId
from blockjobs.store.attempts import Attempts, Standing, Who
from blockworker.host import boot_id
from blockworker.roots import Roots
from blockworker.targets.abandoned import sweep_roots

log = logging.getLogger(__name__)

LOOK: Final = 0.5  # seconds between looks
OBEY: Final = 5.0  # seconds an attempt has to unwind after a cancel, before it is killed
SWEEP: Final = 3600.0  # seconds between sweeps of what is settled
DYING: Final = 0.5  # seconds in which whatever was killed is mostly gone
DEATH: Final = 5.0  # seconds a killed process has to be gone, before it is reported as one that cannot be killed


class Watcher:
    """``tidy``: has a host tidied up, at its start, after an absence of Redis, and now and then, and must not hang.

    Without it the watcher itself sweeps the write roots, which nobody should want whose file systems may hang.
    """

    def __init__(self, attempts: Attempts, roots: Roots, tidy: Callable[[], None] | None = None) -> None:
        self._attempts = attempts
        self._tidy = tidy or partial(sweep_roots, roots)
        self._each_sweep = Every(SWEEP)
        self._boot = boot_id()
        self._killed: dict[str, float] = {}  # attempts, and when they were
        self._reported: set[str] = set()
        self._hanging: list[HangingPath] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watcher", daemon=True)

    @property
    def host(self) -> Host:
        return self._attempts.host

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(3.0)

    @property
    def hanging(self) -> list[HangingPath]:
        """The paths on which attempts of this host hang, as they said themselves."""
        return self._hanging

    def look(self) -> None:
        """One look at every attempt of this host.  Nothing here waits for a process that cannot die."""
        live = self._attempts.live()
        standings = self._attempts.standing(list(live)) if live else []
        self._hanging = [_hanging_path(standing) for standing in standings if standing.hangs]
        killed = {}
        for standing in standings:
            who = live[standing.job]
            if who.attempt != standing.attempt:
                continue  # claimed anew between the two reads
            process = self._process(who)
            if process is None:
                self._release(standing, "fenced" if standing.attempt in self._killed else "dead")
            elif standing.fenced or standing.cancelled_for > OBEY:
                self._kill(standing, process)
                killed[process] = standing
        gone, _ = psutil.wait_procs(killed, timeout=DYING)
        for process in gone:
            self._release(killed[process], "fenced")
        self._killed = {who.attempt: self._killed[who.attempt] for who in live.values() if who.attempt in self._killed}

    def _process(self, who: Who) -> psutil.Process | None:
        """The process that runs an attempt; None if it is gone (a reused pid started at another time).

        One that was killed while a thread of it hangs in the kernel looks like a zombie, and is not gone: its locks are
        held, and its last call may still write.
        """
        if who.boot != self._boot:
            return None
        try:
            process = psutil.Process(who.pid)
            same = abs(process.create_time() - who.started) < 0.05
            gone = process.status() == psutil.STATUS_ZOMBIE and len(os.listdir(f"/proc/{who.pid}/task")) <= 1
        except (psutil.NoSuchProcess, FileNotFoundError):
            return None
        return process if same and not gone else None

    def _kill(self, standing: Standing, process: psutil.Process) -> None:
        """Kill the process of an attempt; one that does not die of it is reported, once."""
        if standing.attempt not in self._killed:
            self._killed[standing.attempt] = boottime()
            log.warning("job %s: killing process %d of its attempt", standing.job, process.pid)
        elif boottime() - self._killed[standing.attempt] > DEATH and standing.attempt not in self._reported:
            self._reported.add(standing.attempt)
            log.error("job %s: process %d cannot be killed (a dead disk?)", standing.job, process.pid)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)

    def _release(self, standing: Standing, why: str) -> None:
        job: JobId = standing.job
        if self._attempts.release(job, standing.txn, standing.token, standing.attempt, why=why):
            log.warning("job %s: its attempt was %s; released", job, why)

    def _follow(self) -> None:
        while not self._stop.wait(LOOK):
            try:
                self.look()
                if self._each_sweep():
                    self._tidy()
            except redis.RedisError as error:
                self._each_sweep = Every(SWEEP)  # whoever was cut off may have been given up
                log.warning("watcher: Redis is away: %s", error)
            except Exception:  # one odd claim or journal is no reason to leave all others unwatched
                log.exception("watcher: an error nobody expected")


def _hanging_path(standing: Standing) -> HangingPath:
    since, _, path = standing.hangs.partition(" ")
    about = f"the attempt of job {standing.job}"
    return HangingPath(path=path, since=int(since) / 1000, about=about, transaction=standing.txn, job=standing.job)
