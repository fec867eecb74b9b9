"""The QMP server: a thread with an event loop in the coordinator's process, on a Unix socket, optionally over TLS."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import redis

from blockjobs.model.errors import BadInput, Refused
from blockjobs.process.sockets import LONGEST_SOCKET
from blockjobs.qmp.client import Client
from blockjobs.qmp.commands import COMMANDS, Command
from blockjobs.qmp.feed import Feed
from blockjobs.qmp.fleet import Backend

log = logging.getLogger(__name__)

QUICK: Final = 16  # parallel commands that only ask Redis
SLOW: Final = 16  # parallel commands that wait for hosts
BACKLOG: Final = 512
BEHIND: Final = 1.0  # seconds of a reply's wait for its own events


@dataclass(frozen=True, slots=True)
class Tls:
    """Address, own certificate, and the authority that must have signed the certificate of every client."""

    host: str
    port: int
    certificate: Path
    key: Path
    authority: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            context.load_verify_locations(self.authority)
        except (OSError, ssl.SSLError) as wrong:
            raise BadInput(f"the TLS certificate, key or authority cannot be used: {wrong}") from None
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class QmpServer:
    """A server that listens from its making on, and serves from ``start`` to ``close``."""

    def __init__(self, fleet: Backend, path: Path | None, tls: Tls | None = None) -> None:
        self._fleet = replace(fleet, commands=["qmp_capabilities", *COMMANDS])
        self.path, self._tls = path, tls
        self._context = tls.context() if tls else None
        self._unix = open_listener(path) if path else None
        self._tcp = socket.create_server((tls.host, tls.port), backlog=BACKLOG) if tls else None
        self._clients: set[Client] = set()
        self._servers: list[asyncio.Server] = []
        self._feed = Feed(fleet.registry, self._deliver)
        self._quick = ThreadPoolExecutor(QUICK, "qmp")
        self._slow = ThreadPoolExecutor(SLOW, "qmp-slow")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="qmp", daemon=True)

    @property
    def port(self) -> int:
        """The TCP port for QMP over TLS; 0 without TLS."""
        return int(self._tcp.getsockname()[1]) if self._tcp else 0

    def start(self) -> None:
        self._thread.start()
        log.info("QMP on %s", ", ".join(str(where) for where in (self.path, self._tcp and self.port) if where))

    def close(self) -> None:
        self._feed.close()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        for pool in (self._quick, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._listen())
            loop.run_forever()
        finally:
            loop.run_until_complete(self._leave())
            loop.close()

    async def _leave(self) -> None:
        """Refuse new clients, and disconnect the present clients."""
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # connections are closed at the loop's next turn

    async def _listen(self) -> None:
        self._feed.start(self._loop)
        if self._unix is not None:
            self._servers.append(await asyncio.start_unix_server(self._serve, sock=self._unix, backlog=BACKLOG))
        if self._tcp is not None:
            self._servers.append(await asyncio.start_server(self._serve, sock=self._tcp, ssl=self._context))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer, self._carry_out)
        self._clients.add(client)
        try:
            await client.serve()
        finally:
            self._clients.discard(client)

    def _deliver(self, messages: bytes) -> None:
        for client in self._clients:
            if client.negotiated:
                client.send(messages)

    async def _carry_out(self, command: Command, arguments: dict[str, Any]) -> Any:
        """Run a command in a thread; its own events come before the reply, after success and failure."""
        pool = self._slow if command.waits else self._quick
        try:
            return await self._loop.run_in_executor(pool, command, self._fleet, arguments)
        finally:
            if command.changes:
                with suppress(redis.RedisError):
                    seq = await self._loop.run_in_executor(self._quick, self._fleet.registry.events.last)
                    await self._feed.reached(seq, BEHIND)


def open_listener(path: Path) -> socket.socket:
    """A Unix socket for its owner alone; the leftover of a dead server is removed.

    Raises:
        Refused: another server answers on the path.
        BadInput: the path cannot be a socket's.
    """
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise BadInput(f"socket path {path} is too long: at most {LONGEST_SOCKET} bytes were expected")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as wrong:
            raise BadInput(f"socket path {path}: {wrong.strerror}") from None
        else:
            raise Refused(f"another server answers on {path}")
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.listen(BACKLOG)
    except OSError as wrong:
        listening.close()
        raise BadInput(f"socket path {path}: {wrong.strerror}") from None
    finally:
        os.umask(before)
    return listening
