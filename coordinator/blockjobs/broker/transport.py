"""Kombu's transport over Redis, reduced to a doorbell: a list for each queue of a host, and nothing else.

A message only names a job or a step, and the sender rings again.  The transport therefore keeps no record of taken
messages, and none of the binding of queues to exchanges, as every queue has an exchange of its own name.  A host's user
needs rights only to the host's two lists.  Celery's events, used only for display, are handled as in stock kombu.

A malformed message is dropped with a line in the log, and a server that takes no commands for now counts as away: in
stock kombu either case ends the worker with all its copies.
"""

from __future__ import annotations

import base64
import json
import logging
import uuid
from queue import Empty
from typing import Any, Final

import msgpack
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.json import dumps
from redis.exceptions import ConnectionError as Away
from redis.exceptions import ResponseError

from blockjobs.registry.address import Address
from blockjobs.registry.connection import is_absence

log = logging.getLogger(__name__)

COPY, STEPS = "copy.", "steps."  # prefixes of the queues of hosts
OPTIONS: Final = {"ack_emulation": False, "priority_steps": [0]}

_OF_TCP: Final = ("host", "port", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options")
# A bell must get through on a full Redis, so that a decision is still carried out.
_PUSH: Final = '#!lua flags=allow-oom\nreturn redis.call("LPUSH", KEYS[1], ARGV[1])'


class Channel(redis.Channel):
    """A channel without records about the queues of hosts, with connections like the registry's."""

    from_transport_options = (*redis.Channel.from_transport_options, "address")
    address: Address
    _in_poll: Any  # the connection of the pending blocking read

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.async_pool.disconnect(inuse_connections=False)  # the connection of the first ping; consumers connect later

    def close(self) -> None:
        """Close without waiting for a pending blocking read, as stock kombu would do."""
        asked = self._in_poll
        if asked and not asked.can_read(timeout=0):
            asked.disconnect()
            self._in_poll = None
        super().close()

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        consuming = super().basic_consume(queue, *args, **kwargs)
        self.pool.disconnect(inuse_connections=False)  # the connection of the queue's declaration, not needed any more
        return consuming

    @property
    def connection_class(self) -> type[Any]:  # type: ignore[override]  # of kombu's class, which is never set
        return self.address.connection_class

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]  # the stubs lack it
        if self.address.scheme == "unix":
            for name in _OF_TCP:
                params.pop(name, None)
        return params | self.address.parameters()

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if not _is_bell(queue):
            super()._put(queue, message, **kwargs)
            return
        with self.conn_or_acquire() as client:
            client.register_script(_PUSH)(keys=[queue], args=[dumps(message)])

    def _size(self, queue: str) -> int:
        """The length of a queue, without a transaction: a full Redis 7.0 refuses even reads inside a transaction."""
        if not _is_bell(queue):
            return int(super()._size(queue))
        with self.conn_or_acquire() as client:
            return int(client.llen(queue))

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # the stubs lack it
        except ResponseError as error:
            if not is_absence(error):
                raise
            self.client.connection.disconnect()
            raise Away(str(error)) from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as odd:
            _log_drop("of this host", odd)
            raise Empty from odd

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if not _is_bell(queue):
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]  # the stubs lack it

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        return [(exchange, "", exchange)] if _is_bell(exchange) else super().get_table(exchange)


class Transport(redis.Transport):
    Channel = Channel
    brpop_timeout = 30  # seconds of one blocking read; an arriving message ends the read at once

    def _deliver(self, message: Any, queue: str | None) -> Any:
        if queue and _is_bell(queue):
            try:
                message = plain_message(message, queue)
            except Exception as odd:  # any error marks a malformed message
                _log_drop(queue, odd)
                return None
        return super()._deliver(message, queue)


def plain_message(found: Any, queue: str) -> dict[str, Any]:
    """A message for Celery, rebuilt from only the task, the id and the arguments of a message found in a queue.

    Celery reads many other fields of a message before calling a task, and an unexpected value ends the worker.

    Raises:
        Exception: of any kind, for a malformed message: task, id and arguments must be texts.
    """
    headers = found["headers"]
    arguments, _, _ = msgpack.unpackb(base64.b64decode(found["body"]))
    texts = (headers["task"], headers["id"], *arguments)
    if odd := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"a text was expected, not {odd[0]!r}")
    body = base64.b64encode(msgpack.packb((arguments, {}, {}))).decode("ascii")
    return {
        "body": body, "content-type": "application/x-msgpack", "content-encoding": "binary",
        "headers": {"lang": "py", "task": headers["task"], "id": headers["id"], "argsrepr": repr(arguments),
                    "kwargsrepr": "{}"},
        "properties": {"delivery_tag": uuid.uuid4().hex, "body_encoding": "base64", "correlation_id": headers["id"],
                       "delivery_info": {"exchange": "", "routing_key": queue}},
    }  # fmt: skip


def _log_drop(queue: str, odd: Exception) -> None:
    log.warning("what is no message was dropped from queue %s: %s: %.200s", queue, type(odd).__name__, odd)


def _is_bell(name: str) -> bool:
    return name.startswith((COPY, STEPS))


def install_transport() -> None:
    """Register this transport with kombu for the Redis schemes in this process."""
    for alias in ("redis", "rediss"):
        TRANSPORT_ALIASES[alias] = f"{__name__}:Transport"
