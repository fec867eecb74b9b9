"""Keep programs running: start dead programs again, stop programs in order, leave no process behind.

Only the main thread may use this module: signals are waited for, not handled, and children are tied to the thread's
life.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from blockjobs.cli.guard import Guard, kill_process_group
from blockjobs.cli.reports import Reports
from blockjobs.process.spawn import adopt_orphans, describe_end, spawn_child
from blockjobs.process.watchdog import SOCKET
from blockjobs.server import last_line

log = logging.getLogger(__name__)

BACKOFF: Final = (0.2, 0.4, 0.8, 1.6, 3.2, 5.0)  # seconds before the next start, by deaths in a row
STEADY: Final = 10.0  # seconds of life after which earlier deaths are forgotten
PATIENCE: Final = 10.0  # seconds from SIGTERM to SIGKILL
STOP: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@dataclass(frozen=True, slots=True)
class Program:
    """A program to keep running.  Programs of a lower ``wave`` are stopped, and gone, before the next wave.

    ``reports``: the program reports when it serves (``blockjobs.process.watchdog``).
    """

    name: str
    argv: tuple[str, ...]
    wave: int = 0
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    reports: bool = False


@dataclass(slots=True)
class Child:
    """A program and its present process; no process between a death and the next start."""

    program: Program
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0  # earliest time of the next start
    deaths: int = 0  # in a row
    ready: bool = False  # the present process has reported that it serves


class Supervisor:
    """A ``with`` block that ends every process started inside."""

    def __init__(self, logs: Path) -> None:
        self.children: dict[str, Child] = {}
        self._logs = logs
        self._stopping = False

    def __enter__(self) -> Self:
        # Under nohup a hangup is ignored; if blocked and waited for, a hangup would end the block.
        self._stop = STOP - {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else STOP
        self._waited = self._stop | {signal.SIGCHLD}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._waited)
        self._others = {process.pid for process in psutil.Process().children()}
        adopt_orphans(wanted=True)  # else the remains of a killed child might never be collected, or even found
        self._guard = Guard()
        self._reports = Reports()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        for orphan in self._orphans():
            with suppress(psutil.NoSuchProcess):
                orphan.kill()
                orphan.wait()
        self._guard.dismiss()
        self._reports.close()
        adopt_orphans(wanted=False)
        while signal.sigtimedwait(self._waited, 0):  # asked twice is asked once
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def start(self, program: Program) -> None:
        child = self.children[program.name] = Child(program, self._logs / f"{program.name}.log")
        self._spawn(child)

    def tend(self, seconds: float) -> bool:
        """Start dead programs again, for about ``seconds``; return False on a signal to stop."""
        give_up = time.monotonic() + seconds
        while True:
            self._reap()
            self._hear()
            now = time.monotonic()
            for child in self.children.values():
                if child.process is None and child.due <= now:
                    self._spawn(child)
            next_due = min((child.due for child in self.children.values() if child.process is None), default=give_up)
            heard = signal.sigtimedwait(self._waited, max(0.0, min(give_up, next_due) - now))
            if heard and heard.si_signo in self._stop:
                return False
            if time.monotonic() >= give_up:
                return True

    def silent(self) -> list[str]:
        """The reporting programs whose present process does not serve yet."""
        self._hear()
        return [name for name, child in self.children.items() if child.program.reports and not child.ready]

    def stop(self) -> None:
        """Send SIGTERM wave by wave, and SIGKILL to processes that outlive ``PATIENCE``."""
        self._stopping = True
        for wave in sorted({child.program.wave for child in self.children.values()}):
            self._end([child for child in self.children.values() if child.program.wave == wave])

    def _end(self, children: Iterable[Child]) -> None:
        alive = [child for child in children if child.process is not None]
        for child in alive:
            if child.process is not None:
                child.process.terminate()
        give_up = time.monotonic() + PATIENCE
        while any(child.process for child in alive) and (left := give_up - time.monotonic()) > 0:
            self._reap()
            if any(child.process for child in alive):
                signal.sigtimedwait({signal.SIGCHLD}, min(left, 1.0))
        for child in alive:
            if child.process is not None:
                log.warning("%s: does not end, is killed", child.program.name)
                child.process.kill()
                child.process.wait()
        self._reap()

    def _spawn(self, child: Child) -> None:
        child.started, child.ready = time.monotonic(), False
        env = {name: value for name, value in child.program.env.items() if not name.startswith("WATCHDOG_")}
        try:
            child.process = spawn_child(child.program.argv, log=child.log, env=env | {SOCKET: self._reports.address})
        except OSError as wrong:  # no memory, the program is being replaced, ...
            self._bury(child, f"it could not be started ({wrong})")
            return
        self._guard.add(child.process.pid)

    def _hear(self) -> None:
        ready = self._reports.take()
        for child in self.children.values():
            child.ready |= child.process is not None and child.process.pid in ready

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            self._guard.renew()
        for child in self.children.values():
            if child.process is None or child.process.poll() is None:
                continue
            group, code = child.process.pid, child.process.returncode
            child.process, child.ready = None, False
            kill_process_group(group)  # a dead leader's group would hold sockets, locks and files
            self._guard.drop(group)
            self._bury(child, describe_end(code))
        for orphan in self._orphans():
            with suppress(psutil.NoSuchProcess, ChildProcessError):
                if orphan.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(orphan.pid, os.WNOHANG)

    def _orphans(self) -> list[psutil.Process]:
        ours = (
            {child.process.pid for child in self.children.values() if child.process} | {self._guard.pid} | self._others
        )
        return [process for process in psutil.Process().children() if process.pid not in ours]

    def _bury(self, child: Child, how: str) -> None:
        if time.monotonic() - child.started >= STEADY:
            child.deaths = 0
        pause = BACKOFF[min(child.deaths, len(BACKOFF) - 1)]
        child.deaths += 1
        child.due = time.monotonic() + pause
        if not self._stopping:
            said = f"; its last line: {last_line(child.log)}" if child.deaths > 1 else ""
            log.warning("%s: %s, is started again in %.1f s%s", child.program.name, how, pause, said)
