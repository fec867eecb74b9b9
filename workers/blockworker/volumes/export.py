"""Images read and written by QEMU for us: ``qemu-nbd`` on open descriptors of this process, spoken to by NBD.

The server runs in the cage, lives as long as this process talks to it, and is killed with the thread that started it.
The lock of a handed file is held until the server is gone: its last writes after the death of this process stay fenced.
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
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import printable_text
from blockworker.system.cage import Cage, kernel_cage
from blockworker.system.cage.limits import PATIENCE, ToolPatience
from blockworker.system.cage.tool import end_process
from blockworker.volumes.nbd import LARGEST, Connection, NbdServerGone, NbdState
from blockworker.volumes.qemuimg import tool_verdict

CONNECTIONS: Final = 4  # two lanes, a flush, and the planner
MOMENT: Final = 0.05  # seconds that an answer about allocation should take
SHORTEST_ANSWER: Final = 64 << 20  # least bytes of the image in one answer
_LOWEST: Final = 10
_TOOL: Final = "qemu-nbd"
_HANDED: Final = re.compile(r"/dev/fd/(\d+)")
_BELOW: Final = "Could not open backing file: "  # QEMU prints this once for every layer above the layer in question


def duplicate_for_export(fd: int) -> int:
    """A copy of a descriptor for an export, above the numbers used by the server itself; locks are shared."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)


class Export:
    """A server for one image. Any thread may call any method."""

    def __init__(
        self,
        node: dict[str, Any],
        files: Mapping[int, str],
        *,
        writable: bool = False,
        cage: Cage | None = None,
        patience: ToolPatience = PATIENCE,
        answer: float = PATIENCE.answer,
    ) -> None:
        """Serve a node of QEMU with the descriptors ``files``, named for people, the topmost layer first.

        ``answer``: seconds that one answer may take; then the server counts as broken, and is killed.

        Raises:
            JobFailed: the image cannot be opened; the text is QEMU's, and names the file.
        """
        self._files, self._patience = dict(files), patience
        self._broken = ""  # why the server can answer nothing more
        self._said = os.memfd_create("qemu-nbd")
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._connections: list[Connection] = []
        self._asked = SHORTEST_ANSWER
        try:
            sockets = self._start(cage or kernel_cage(), node, [] if writable else ["--read-only"])
        except BaseException:
            os.close(self._said)
            raise
        try:
            for sock in sockets:
                connection = Connection(sock)
                sock.settimeout(answer)
                self._connections.append(connection)
                self._idle.put(connection)
        except NbdServerGone as gone:
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

    def states(self, start: int, length: int) -> Iterator[NbdState]:
        """The states of the range in order, without gaps; neighbours may be equal.

        QEMU needs milliseconds for a GiB of a qcow2, and a second for a GiB of a vmdk: a request covers only as much as
        QEMU answers within a moment, so that the caller can be stopped between answers.
        """
        end = start + length
        while start < end:
            began = time.monotonic()
            with self._one() as connection:
                states = connection.states(start, min(self._asked, end - start))
            self._asked = next_length(self._asked, time.monotonic() - began)
            yield from states
            start = states[-1].start + states[-1].length

    def check_alive(self) -> None:
        """Raise NbdServerGone if the server is gone."""
        if self._broken or self._process.poll() is not None:
            raise NbdServerGone(self._broken or self._last_words() or "the server is gone")

    def close(self) -> None:
        """End the server. Makes nothing durable: only ``flush`` does."""
        for connection in self._connections:
            connection.close()
        if not self._broken:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._patience.start)
        end_process(self._process, self._patience)
        with suppress(OSError):
            os.close(self._said)

    @contextmanager
    def _one(self) -> Iterator[Connection]:
        """A connection for exclusive use. Raises NbdError."""
        connection = self._idle.get()
        try:
            yield connection
        except NbdServerGone as gone:
            raise NbdServerGone(self._give_up(gone)) from None
        finally:
            self._idle.put(connection)

    def _give_up(self, gone: NbdServerGone) -> str:
        """Kill a server that broke a connection, or did not answer in time; return the reason, for every caller."""
        if not self._broken:
            self._broken = self._last_words() or gone.text
            self._process.kill()
        return self._broken

    def _start(self, cage: Cage, node: dict[str, Any], words: list[str]) -> list[socket.socket]:
        """Start the server and connect to it before it runs: then no other process can connect."""
        with tempfile.TemporaryDirectory(prefix="blockjobs-") as place, socket.socket(socket.AF_UNIX) as listener:
            text = "json:" + json.dumps(node)
            self._preface = f"Failed to blk_new_open '{text}': "
            arguments = [f"--shared={CONNECTIONS}", "--allocation-depth", *words, text]
            argv = cage.command_line(_TOOL, arguments, self._files, listener=listener.fileno())
            path = os.path.join(place, "nbd")
            listener.bind(path)
            listener.listen(CONNECTIONS)
            calls = [_connected_socket(path, self._patience.start) for _ in range(CONNECTIONS)]
            try:
                self._process = subprocess.Popen(
                    argv, pass_fds=[listener.fileno(), *self._files], stdin=subprocess.DEVNULL, stdout=self._said,
                    stderr=self._said,
                )  # fmt: skip
            except OSError as error:
                for sock in calls:
                    sock.close()
                code = error.errno or errno.EIO
                raise JobFailed(code, f"{_TOOL}: {argv[0]}: {os.strerror(code)}") from None
            return calls

    def _why(self, gone: NbdServerGone) -> JobFailed:
        """Kill the server; return why the image could not be opened."""
        for connection in self._connections:
            connection.close()
        end_process(self._process, self._patience)
        said = self._last_words() or name_file(gone.text, self._files)
        os.close(self._said)
        code = errno.EBUSY if " lock " in said else errno.EIO
        return JobFailed(code, said)

    def _last_words(self) -> str:
        """Why QEMU gave up, with the file's name for people; "" if QEMU printed nothing."""
        said = tool_verdict(os.pread(self._said, 1 << 16, 0), _TOOL).removeprefix(self._preface)
        return name_file(said, self._files)


def name_file(said: str, files: Mapping[int, str]) -> str:
    """QEMU's message, completed by the name of its file: ``files`` by descriptor, the topmost layer first."""
    said = printable_text(said)  # the message may contain names from an image
    named = _HANDED.sub(lambda fd: files.get(int(fd[1]), fd[0]), said)
    if not said or named != said or not files:
        return named
    layer = min(said.count(_BELOW), len(files) - 1)
    return f"{list(files.values())[layer]}: {said}"


def next_length(asked: int, seconds: float) -> int:
    """Bytes of the next request for states, after a request for ``asked`` bytes took ``seconds``."""
    if seconds > 2 * MOMENT:
        return max(SHORTEST_ANSWER, asked // 2)
    return min(LARGEST, asked * 2) if seconds < MOMENT else asked


def _connected_socket(path: str, seconds: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(seconds)
    sock.connect(path)
    return sock
