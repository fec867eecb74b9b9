"""Processes for errands: forked by a process that was itself forked before the first thread began.

A thread hanging in the kernel cannot be ended, nor can the process: locks and connections of the process stay until the
file system answers. A process per errand keeps only the resources of the errand. When the steps worker ends, the forker
ends, and then the kernel ends every process made by the forker, as far as the process can end.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final, NoReturn

from blockjobs.process.spawn import describe_end
from blockjobs.registry import codec
from blockworker.system.pidtable import PidTable
from blockworker.system.threads import vital_thread

_PR_SET_PDEATHSIG: Final = 1
_PID: Final = 8  # bytes in which the forker sends a process id
HEARD: Final = 1.0  # seconds in which a forker notes how a process ended
ANSWER: Final = 30.0  # seconds in which a process is forked, also where the machine is busy


# How the processes made by a forker ended: noted by the forker, their parent.
_ENDS: Final = PidTable(8)


class ForkerGone(Exception):
    """The process of an errand has ended without an answer."""


class ErrandProcess:
    """A process for errands, one after the other. For a single thread at a time."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.pid, self._connection = pid, connection

    def run(self, kind: str, words: object) -> tuple[Any, bool]:
        """Do an errand; return its result, and whether the process takes another errand. Raises ForkerGone."""
        try:
            self._connection.send_bytes(codec.pack_value([kind, words]))
            value, stays = codec.unpack_value(self._connection.recv_bytes())
        except (OSError, EOFError, ValueError):
            raise ForkerGone(f"process {self.pid}: {_way_of_ending(self.pid)}") from None
        return value, bool(stays)

    def close(self) -> None:
        """Let the process end when the current errand is done; at once without an errand."""
        self._connection.close()


class Forker:
    """Forks processes for errands. To be made while the program has a single thread.

    ``warm``: called once, in the forking process: modules loaded by ``warm`` are loaded in every child. ``answer``:
    seconds for a fork. A slower forker is ended, as an answer to one request must never be taken for the answer to
    another request.
    """

    def __init__(
        self, serve: Callable[[Connection], None], warm: Callable[[], object] = lambda: None, *, answer: float = ANSWER
    ) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(answer)
        self._closed = False
        self.pid = os.fork()
        if self.pid == 0:
            self._socket.close()
            _fork_until_closed(theirs, serve, warm)
        theirs.close()

    def start(self) -> ErrandProcess:
        """Fork a new process. For one thread at a time. Raises ForkerGone: the forker was closed, or has ended."""
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._socket, [b"fork"], [theirs.fileno()])
            told = self._socket.recv(_PID)
        except TimeoutError:
            told = b""
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        except OSError:
            told = b""
        finally:
            theirs.close()
        if len(told) != _PID:
            ours.close()
            raise ForkerGone("the process that forks others has ended")
        return ErrandProcess(int.from_bytes(told, "big"), Connection(ours.detach()))

    def watch(self, ended: Callable[[], object]) -> None:
        """Have ``ended`` called, by a new thread, if the forker ends before it is closed."""

        def follow() -> None:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            if not self._closed:
                ended()

        vital_thread(follow, "forker").start()

    def close(self) -> None:
        """End the forker, and every process made by the forker, except processes hanging in the kernel."""
        self._closed = True
        self._socket.close()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _way_of_ending(pid: int) -> str:
    """How a process with a closed connection ended: its forker is notified a moment later."""
    give_up = time.monotonic() + HEARD
    while not (code := _ENDS.of(pid)) and time.monotonic() < give_up:
        time.sleep(0.01)
    return describe_end(int(code)) if code else "it has ended"


def _note_ends(*_: object) -> None:
    """Reap the ended children, and note how they ended."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) and found[0]:
            _ENDS.note(found[0], b"%d" % os.waitstatus_to_exitcode(found[1]))


def _fork_until_closed(
    control: socket.socket, serve: Callable[[Connection], None], warm: Callable[[], object]
) -> NoReturn:
    try:
        # A signal to a group of processes is meant for the worker, and the worker's end ends the forker. The signal is
        # not ignored: commands would inherit that.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGCHLD, _note_ends)
        here = os.getpid()
        warm()
        while True:
            message, fds, _, _ = socket.recv_fds(control, 16, 1)
            if not message or not fds:
                break
            fcntl.fcntl(fds[0], fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            pid = os.fork()
            if pid == 0:
                control.close()
                _serve_until_closed(fds[0], here, serve)
            os.close(fds[0])
            control.send(pid.to_bytes(_PID, "big"))
    finally:
        os._exit(0)


def _serve_until_closed(fd: int, parent: int, serve: Callable[[Connection], None]) -> NoReturn:
    try:
        _ENDS.note(os.getpid(), b"")  # another process had this id
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.getppid() == parent:
            serve(Connection(fd))
    finally:
        os._exit(0)
