"""A QMP connection: greeting, negotiation, then commands in turn, with events in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import redis

from blockjobs.model.errors import BlockjobsError
from blockjobs.qmp import qapi, tables, wire
from blockjobs.qmp.commands import COMMANDS, VERSION, Command
from blockjobs.qmp.errors import NO_COMMAND, QmpError

log = logging.getLogger(__name__)

GREETING: Final = {"QMP": {"version": VERSION, "capabilities": []}}
PAGE: Final = 16 << 10  # bytes of a read
SLOW: Final = 16 << 20  # unread bytes until a client is cut off

Carry = Callable[[Command, dict[str, Any]], Awaitable[Any]]


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, carry_out: Carry) -> None:
        self._reader, self._writer, self._carry_out = reader, writer, carry_out
        self.negotiated = False

    def send(self, message: bytes) -> None:
        """Send without waiting; cut off a client that does not read (it may reconnect and ask for missed events)."""
        if self._writer.is_closing():
            return
        self._writer.write(message)
        if self._writer.transport.get_write_buffer_size() > SLOW:
            log.warning("QMP: a client does not read, it is cut off")
            self._writer.transport.abort()

    async def serve(self) -> None:
        """Serve the client until it disconnects."""
        splitter = wire.Splitter()
        try:
            self.send(wire.encode_message(GREETING))
            while data := await self._reader.read(PAGE):
                for text in splitter.feed(data):
                    await self._handle(text)
                    await self._writer.drain()
        except (ConnectionError, TimeoutError) as gone:
            log.debug("QMP: a client is gone: %s", gone)
        finally:
            self._writer.close()

    async def _handle(self, text: bytes | QmpError) -> None:
        reply: dict[str, Any] = {}
        try:
            message = wire.decode_message(text)
            if isinstance(message, dict) and "id" in message:
                reply["id"] = message["id"]
            reply = {"return": await self._answer(*wire.parse_request(message)), **reply}
        except QmpError as error:
            reply = {"error": error.to_json(), **reply}
        self.send(wire.encode_message(reply))

    async def _answer(self, name: str, arguments: dict[str, Any]) -> Any:
        if not self.negotiated:
            if name != "qmp_capabilities":
                raise QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", NO_COMMAND)
            qapi.check_arguments(tables.CAPABILITIES, arguments)
            if "oob" in arguments.get("enable", ()):
                raise QmpError("Capability 'oob' not available")
            self.negotiated = True
            return {}
        if name == "qmp_capabilities":
            raise QmpError("Capabilities negotiation is already complete, command ignored", NO_COMMAND)
        command = COMMANDS.get(name)
        if command is None:
            raise QmpError(f"The command {name[:200]} has not been found", NO_COMMAND)
        try:
            return await self._carry_out(command, arguments)
        except BlockjobsError as refused:
            raise QmpError(str(refused)) from None
        except (redis.ConnectionError, redis.TimeoutError) as error:
            log.warning("QMP: %s: Redis is away: %s", name, error)
            raise QmpError(
                f"Redis is not reachable: {type(error).__name__}; whether it took effect is unknown"
            ) from None
        except redis.RedisError as error:
            log.warning("QMP: %s: Redis refused: %s", name, error)
            raise QmpError(f"Redis refused: {error}") from None
        except QmpError:
            raise
        except Exception:
            log.exception("QMP: %s failed in a way nobody expected", name)
            raise QmpError("Internal error; the coordinator's log says more") from None
