"""A proxy in front of a Redis server that swallows one reply: the call has taken effect, and nobody hears of it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self


class Proxy:
    """Serves the socket ``path``.  The first reply with ``marker`` in it is lost, with its connection."""

    def __init__(self, server: Path, path: Path, marker: bytes) -> None:
        self.url = f"unix://{path}?db=0"
        self.swallowed = 0
        self._server, self._marker = str(server), marker
        self._pairs: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(16)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listening, *self._pairs):
            _end(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._pairs += [client, server]
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if replies and not self.swallowed and self._marker in data:
                    self.swallowed += 1
                    break
                target.sendall(data)
        _end(source)
        _end(target)


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
