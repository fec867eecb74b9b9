"""A webhook's receiver of the test's own, on 127.0.0.1: answers as it is told to, and keeps what it got."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Got:
    """One request; the names of its headers in small letters."""

    path: str
    headers: dict[str, str]
    body: bytes
    answered: int


class Receiver:
    """``answers``: the status of each request in turn, the last one for all that follow; 0: never an answer."""

    def __init__(self, answers: Iterable[int] = (200,)) -> None:
        self.got: queue.Queue[Got] = queue.Queue()
        self.asleep = threading.Event()
        receiver, left = self, list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = left.pop(0) if len(left) > 1 else left[0]
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.put(Got(self.path, headers, body, status))
                if not status:
                    receiver.asleep.wait()
                    return
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the screen."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://user:hush@127.0.0.1:{self._server.server_port}/hooks/hidden?token=hidden2"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.asleep.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
