"""The watcher: releases dead attempts of a host, kills attempts whose end was ordered, and sweeps.

A sweep closes the journals of settled transactions, and removes old ones. The watcher is a thread of the steps worker's
main process and needs no slot: a takeover never waits for a slot held by a zombie. A job is released only after the old
process is gone: then the flock is free, and the fence is real. Rule: only a process that runs the very attempt is
killed for the attempt. Claims are handled one by one: a claim that cannot be handled is put aside, and does not delay
the release of other claims.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import psutil
import redis

from blockjobs.model.errors import BlockjobsError
from blockjobs.model.hanging import HangingPath
from blockjobs.model.ids import Host, JobId
from blockjobs.process.clock import Every, read_boot_id, seconds_since_boot
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry.attempts import Attempts, AttemptStanding, LocalClaim, Who
from blockworker.host.roots import Roots
from blockworker.system import processname, processstart
from blockworker.system.threads import vital_thread
from blockworker.watch.abandoned import sweep_roots

log = logging.getLogger(__name__)

LOOK: Final = 0.5  # seconds between looks at the processes of attempts, which cost Redis nothing
READ: Final = 2.0  # seconds between reads of the attempts in the registry; at once if a process is gone
IDLE: Final = 3.0  # seconds between reads while nothing runs
OBEY: Final = 5.0  # seconds an attempt has to unwind after a cancel, before its process is killed
SWEEP: Final = 3600.0  # seconds between sweeps of settled transactions
DYING: Final = 0.5  # seconds in which a killed process is mostly gone
CLAIM: Final = "claim of job "  # begins the name of a claim that is put aside
DEATH: Final = 5.0  # seconds a killed process has to be gone, before it is reported as unkillable


class Unkillable(BlockjobsError):
    """A process that this process may not kill."""

    def __init__(self, pid: int, error: OSError) -> None:
        super().__init__(f"process {pid} cannot be killed ({error.strerror}): does it run as another user?")


class Watcher:
    """Watches one host.

    ``tidy``: has the host tidied at the start, after an absence of Redis, and now and then; never hangs. Without
    ``tidy`` the watcher itself sweeps the write roots: unsuitable for file systems that may hang.
    """

    def __init__(self, attempts: Attempts, roots: Roots, tidy: Callable[[], None] | None = None) -> None:
        self._attempts = attempts
        self._tidy = tidy or partial(sweep_roots, roots)
        self._each_read, self._each_sweep = Every(READ), Every(SWEEP)
        self._boot = read_boot_id()
        self._killed: dict[str, float] = {}  # attempts -> when they were killed
        self._cancelled: dict[str, float] = {}  # attempts of cancelled jobs -> when the cancel was first seen
        self._reported: set[str] = set()
        self._known: dict[JobId, AttemptStanding] = {}  # state of the job of every claim on this host, at the last look
        self._running: list[Who] = []  # the processes that ran the attempts
        self.aside = Quarantine()
        self._stop = threading.Event()
        self._thread = vital_thread(self._follow, "watcher")

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
        """The hanging paths of attempts on this host, as reported by the attempts."""
        known = [*self._known.values()]
        return [_hanging_path(standing, *standing.hangs) for standing in known if standing.hangs is not None]

    def look(self) -> None:
        """Look once at every attempt of this host, without waiting for a process that cannot die."""
        claims = {_quarantine_item(claim): claim for claim in self._attempts.live()}
        for item in self.aside.told().keys() - claims.keys():
            if item.startswith(CLAIM):
                self.aside.forget(item)
        self._known = {claim.job: self._known[claim.job] for claim in claims.values() if claim.job in self._known}
        self._running.clear()
        killed = {}
        for item, claim in claims.items():
            ended = self.aside.handle(item, partial(self._look_at, claim))
            if ended is not None:
                killed[ended[0]] = ended[1]
        gone, _ = psutil.wait_procs(killed, timeout=DYING)
        for process in gone:
            standing = killed[process]
            self.aside.handle(_quarantine_item(standing), partial(self._release, standing, "fenced"))
        here = {standing.attempt for standing in self._known.values()}
        self._killed = {attempt: at for attempt, at in self._killed.items() if attempt in here}
        self._cancelled = {attempt: at for attempt, at in self._cancelled.items() if attempt in here}

    def _look_at(self, claim: LocalClaim) -> tuple[psutil.Process, AttemptStanding] | None:
        """Release the claim of a dead attempt; kill the process of an attempt whose end was ordered.

        Returns the killed process with the standing of its attempt; else None.
        """
        who, standing = claim.who(), claim.standing()
        self._known[claim.job] = standing
        if who.attempt != standing.attempt:  # claimed anew between the two reads, or the whole job is gone
            if not standing.txn:
                self._attempts.release(standing.job, standing.txn, 0, who.attempt, why="dead")
            return None
        process = self._process(who)
        if process is None:
            self._release(standing, "fenced" if standing.attempt in self._killed else "dead")
            return None
        self._running.append(who)
        if standing.fenced or self._disobeys(standing):
            self._kill(standing, process)
            return process, standing
        return None

    def _disobeys(self, standing: AttemptStanding) -> bool:
        """Whether an attempt has had its time to unwind since the cancel of its job was first seen."""
        if not standing.cancelled:
            return False
        return seconds_since_boot() - self._cancelled.setdefault(standing.attempt, seconds_since_boot()) > OBEY

    def _process(self, who: Who) -> psutil.Process | None:
        """The process of an attempt; None if the process is gone, or no longer runs the attempt.

        A process killed while a thread hangs in the kernel looks like a zombie, and is not gone: the process still
        holds locks, and the last call may still write.
        """
        if who.boot != self._boot:
            return None
        try:
            process = psutil.Process(who.pid)
            same = processstart.has_started_at(who.pid, who.started)
            gone = process.status() == psutil.STATUS_ZOMBIE and len(os.listdir(f"/proc/{who.pid}/task")) <= 1
            runs = processname.may_run(who.pid, who.attempt)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            return None
        return process if same and runs and not gone else None

    def _kill(self, standing: AttemptStanding, process: psutil.Process) -> None:
        """Kill the process of an attempt; a surviving process is reported, once."""
        if standing.attempt not in self._killed:
            self._killed[standing.attempt] = seconds_since_boot()
            log.warning("job %s: killing process %d of its attempt", standing.job, process.pid)
        elif seconds_since_boot() - self._killed[standing.attempt] > DEATH and standing.attempt not in self._reported:
            self._reported.add(standing.attempt)
            log.error("job %s: process %d cannot be killed (a dead disk?)", standing.job, process.pid)
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise Unkillable(process.pid, error) from None

    def _release(self, standing: AttemptStanding, why: str) -> None:
        if self._attempts.release(standing.job, standing.txn, standing.token, standing.attempt, why=why):
            log.warning("job %s: its attempt was %s; released", standing.job, why)

    def _look_if_due(self) -> None:
        """Look when a look is due, and at once if a process of the last look is gone."""
        if not self._known or self._each_read() or any(self._process(who) is None for who in self._running):
            self.look()

    def _follow(self) -> None:
        while not self._stop.wait(LOOK if self._known else IDLE):
            try:
                self.aside.part("the look at the attempts here", self._look_if_due)
                if self._each_sweep():
                    self.aside.handle("the tidying up of this host", self._tidy)
            except redis.RedisError as error:
                self._each_sweep = Every(SWEEP)  # a host that was cut off may have been given up
                log.warning("watcher: Redis is away: %s", error)


def _quarantine_item(claim: LocalClaim | AttemptStanding) -> str:
    """The name of a claim in the quarantine."""
    return f"{CLAIM}{claim.job}"


def _hanging_path(standing: AttemptStanding, since: int, path: str) -> HangingPath:
    about = f"the attempt of job {standing.job}"
    return HangingPath(path=path, since=since / 1000, about=about, transaction=standing.txn, job=standing.job)
