"""Daemons and workers, each in a process of its own: forks of one process that has imported what they do.

To import Celery and the rest takes half a second of a processor, and the stories start hundreds of such processes.
That is all that is left out: a fork has a session, an environment, descriptors and a working directory of its own, too.
That ``python -m blockjobs`` begins at all is for the tests of ``up``, of the wheel and of whole machines.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from mmap import mmap
from pathlib import Path
from threading import Lock
from typing import Any

from blockjobs.process.spawn import end_with_parent

# What is imported before the first fork, beside all that these import.  No module that makes memory which a process and
# its children share, as all forks would share it: they import those few (``blockworker.app``) for themselves.
MODULES = (
    "blockjobs.cli.main", "blockjobs.cli.daemons", "blockjobs.daemons.coordinator", "blockjobs.ask.doorbell",
    "blockjobs.daemons.finalizer", "blockjobs.daemons.loop", "blockjobs.daemons.merger", "blockjobs.daemons.notifier",
    "blockjobs.ask.prune", "blockjobs.daemons.pruner", "blockjobs.qmp.server", "blockworker.commands.worker",
    "blockworker.drivers", "blockworker.steps.desk", "blockworker.steps.work", "blockworker.watch.heartbeat",
    "blockworker.records.highest_decision", "blockworker.watch.pulse", "blockworker.watch.watcher",
    "celery.app.amqp", "celery.app.control",
    "celery.app.events", "celery.app.log", "celery.apps.worker", "celery.concurrency.prefork",
    "celery.concurrency.thread", "celery.loaders.app", "celery.worker.components", "celery.worker.consumer",
    "celery.worker.strategy", "kombu.transport.redis",
)  # fmt: skip
BLOCKJOBS = "blockjobs.cli.main:main"
ASKED = 1 << 17  # bytes, at most: an environment and a command line
FILES = 4096  # descriptors that the process that forks can have, at most


class Forked:
    """What ``subprocess.Popen`` is for a child of this process, for a child of the one that forks."""

    def __init__(self, pid: int, told: int) -> None:
        """``told``: the reading end of a pipe in which its exit code comes, once it was waited for."""
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        return self._await(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; that of a signal is negative."""
        if (code := self._await(timeout)) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def _await(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            # Nothing: the process that forks has ended, and the kernel has sent SIGTERM to all that it forked.
            self.returncode = int(os.read(self._told, 16) or -signal.SIGTERM)
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Forks:
    """The process that has imported all."""

    def __init__(self) -> None:
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            code = f"import sys; sys.path[:] = {sys.path!r}; import forks; forks.serve({there.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=[there.fileno()], stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self._one_at_a_time = Lock()

    def start(self, target: str, words: Sequence[str], *, log: Path, env: Mapping[str, str]) -> Forked:
        """Call ``module:function`` with a command line, in a new process whose output is appended to ``log``."""
        told, tell = os.pipe()
        asked = {"target": target, "words": [*words], "env": {**env}, "cwd": os.getcwd()}
        with log.open("ab") as output, self._one_at_a_time:
            socket.send_fds(self._here, [json.dumps(asked).encode()], [output.fileno(), tell])
            os.close(tell)
            return Forked(int(self._here.recv(16)), told)

    def close(self) -> None:
        """End it, and with it whatever it has forked that runs still."""
        self._here.close()
        self._process.wait()


@cache
def forks() -> Forks:
    made = Forks()
    atexit.register(made.close)
    return made


# --- the process that forks, which has no threads ---------------------------------------------------------


def serve(number: int) -> None:
    """Fork whatever is asked for, and tell how it ended, until nobody can ask any more."""
    for name in MODULES:
        import_module(name)
    assert not (found := shared_memory()), f"each fork has to import it for itself: {found}"
    gc.collect()
    gc.freeze()  # the pages of what all have imported stay shared
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asking, running = socket.socket(fileno=number), dict[int, int]()  # pid -> where its exit code is awaited
    while True:
        ready, _, _ = select.select([asking, woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
            _tell_ended(running)
        if asking in ready:
            message, given, _, _ = socket.recv_fds(asking, ASKED, 2)
            if not message:
                return
            if not (pid := os.fork()):
                asking.detach()
                _be(json.loads(message), given[0])
                return
            running[pid] = given[1]
            os.close(given[0])
            asking.send(str(pid).encode())


def shared_memory() -> list[str]:
    """What modules of ours have made for a process and its children, as "module.name"."""
    ours = {name: vars(module) for name, module in sys.modules.items() if name.startswith(("blockjobs", "blockworker"))}
    return [f"{name}.{what}" for name, has in ours.items() for what, value in has.items() if isinstance(value, mmap)]


def _tell_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        tell = running.pop(pid)
        with suppress(BrokenPipeError):  # nobody waits for it
            os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(tell)


def _be(asked: dict[str, Any], log: int) -> None:
    """Be what was asked for: as if this process had been started for it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_with_parent()
    os.setsid()
    for stream in (1, 2):
        os.dup2(log, stream)
    os.closerange(3, FILES)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path[:0] = [
        path for path in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if path not in ("", *sys.path)
    ]
    sys.argv = ["blockjobs", *asked["words"]]
    module, _, function = asked["target"].partition(":")
    getattr(import_module(module), function)()
