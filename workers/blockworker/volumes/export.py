"""Images that QEMU reads and writes for us: ``qemu-nbd`` on descriptors that are open here, spoken to by NBD.

It lives as long as we talk to it, and dies with the thread that started it.  The lock of a file that it was handed is
held until it is gone: what it may still be writing when we die stays fenced.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import queue
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockworker.volumes.nbd import Connection, Gone, NbdError, State
from blockworker.volumes.qemuimg import missing, verdict

CONNECTIONS: Final = 4  # two lanes, the one who flushes, the one who plans
PATIENCE: Final = 30.0  # seconds for the first word, and for the last
_LOWEST: Final = 10
_TOOL: Final = "qemu-nbd"
_HANDED: Final = re.compile(r"/dev/fd/(\d+)")
# Runs in the child: the listening socket where systemd would put it, and SIGTERM when the parent's thread is gone.
_LAUNCH: Final = """
import ctypes, os, sys
parent, listener, *argv = sys.argv[1:]
ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
if os.getppid() == int(parent):
    os.dup2(int(listener), 3)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")
"""


def handed(fd: int) -> int:
    """A copy of a descriptor that an export can be given, above those that the server uses itself; locks are shared."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)


class Export:
    """Any thread may call any method."""

    def __init__(self, node: dict[str, Any], files: Mapping[int, str], *, writable: bool = False) -> None:
        """Serve a node of QEMU's, whose files are the descriptors ``files``, each with what people call it.

        Raises:
            JobFailed: it cannot be opened; the text is QEMU's.
        """
        self._files = dict(files)
        self._said = os.memfd_create("qemu-nbd")
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._connections: list[Connection] = []
        sockets = self._start(node, [] if writable else ["--read-only"])
        try:
            for sock in sockets:
                connection = Connection(sock)
                sock.settimeout(None)  # a slow disk is no broken one: who judges a hang has a limit of his own
                self._connections.append(connection)
                self._idle.put(connection)
        except Gone as gone:
            for sock in sockets:
                sock.close()
            raise self._why(gone) from None
        self.size = self._connections[0].size

    def read(self, view: memoryview, offset: int) -> None:
        with self._one() as connection:
            connection.read(view, offset)

    def write(self, view: memoryview, offset: int) -> None:
        with self._one() as connection:
            connection.write(view, offset)

    def zero(self, offset: int, length: int) -> None:
        with self._one() as connection:
            connection.zero(offset, length)

    def flush(self) -> None:
        with self._one() as connection:
            connection.flush()

    def states(self, start: int, length: int) -> Iterator[State]:
        """The range in order, without gaps; neighbours may be alike."""
        end = start + length
        while start < end:
            with self._one() as connection:
                states = connection.states(start, end - start)
            yield from states
            start = states[-1].start + states[-1].length

    def close(self) -> None:
        """End it.  Says nothing about what is durable: only ``flush`` does."""
        for connection in self._connections:
            connection.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            os.close(self._said)

    @contextmanager
    def _one(self) -> Iterator[Connection]:
        """A connection that nobody else uses.  Raises NbdError."""
        connection = self._idle.get()
        try:
            yield connection
        except Gone as gone:
            raise NbdError(errno.EIO, self._last_words() or gone.text) from None
        finally:
            self._idle.put(connection)

    def _start(self, node: dict[str, Any], words: list[str]) -> list[socket.socket]:
        """Start the server and call it; the calls are made before it runs, so that nobody else can make them."""
        with tempfile.TemporaryDirectory(prefix="blockjobs-") as place, socket.socket(socket.AF_UNIX) as listener:
            path = os.path.join(place, "nbd")
            listener.bind(path)
            listener.listen(CONNECTIONS)
            calls = [_called(path) for _ in range(CONNECTIONS)]
            text = "json:" + json.dumps(node)
            self._preface = f"Failed to blk_new_open '{text}': "
            argv = [
                sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(listener.fileno()), _TOOL,
                f"--shared={CONNECTIONS}", "--allocation-depth", *words, text,
            ]  # fmt: skip
            try:
                self._process = subprocess.Popen(
                    argv, pass_fds=[listener.fileno(), *self._files], stdin=subprocess.DEVNULL, stdout=self._said,
                    stderr=self._said,
                )  # fmt: skip
            except OSError as error:
                for sock in calls:
                    sock.close()
                os.close(self._said)
                raise missing(sys.executable, error) from None
            return calls

    def _why(self, gone: Gone) -> JobFailed:
        for connection in self._connections:
            connection.close()
        self._process.kill()
        self._process.wait()
        said = self._last_words() or gone.text
        os.close(self._said)
        if said == os.strerror(errno.ENOENT):
            return missing(_TOOL, OSError(errno.ENOENT, said))
        code = errno.EBUSY if " lock " in said else errno.EIO
        return JobFailed(code, said)

    def _last_words(self) -> str:
        """Why QEMU gave up, with the files named as people call them."""
        said = verdict(os.pread(self._said, 1 << 16, 0), _TOOL).removeprefix(self._preface)
        return _HANDED.sub(lambda fd: self._files.get(int(fd[1]), fd[0]), said)


def _called(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return sock
