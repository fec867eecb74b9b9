"""The socket of ``up`` for the readiness reports of programs: see ``blockjobs.process.watchdog``."""

from __future__ import annotations

import socket
import struct
from typing import Final

from blockjobs.process.watchdog import READY

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid, as the kernel fills them in


class Reports:
    """A socket for reports, with an abstract name: no directory's path is too long."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.settimeout(0)
        self._socket.bind("")  # the kernel chooses the name
        self.address = "@" + self._socket.getsockname().decode("ascii").removeprefix("\0")

    def take(self) -> set[int]:
        """The processes with a readiness report since the last call."""
        ready: set[int] = set()
        while True:
            try:
                said, control, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return ready
            for _, kind, value in control:
                if kind == socket.SCM_CREDENTIALS and READY.encode() in said.split(b"\n"):
                    ready.add(_CREDENTIALS.unpack(value)[0])

    def close(self) -> None:
        self._socket.close()
