"""Kombu's transport over Redis, reduced to what a doorbell needs: a list for each queue of a host, and nothing else.

A message names a job or a step, and whoever waits rings again: so nothing is written about who has taken a message, and
nothing about which queue belongs to which exchange, as every queue has one of its own name.  A host's user needs no
right but to its own two lists.  Celery's events, which are display only, go as in stock kombu.

What is no message at all is dropped with a line in the log, and a server that takes no commands for now counts as one
that is away: in stock kombu each of the two ends the worker, with all its copies.
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

COPY, STEPS = "copy.", "steps."  # what the queues of hosts begin with
OPTIONS: Final = {"ack_emulation": False, "priority_steps": [0]}

_OF_TCP: Final = ("host", "port", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options")
# A bell goes through on a full Redis: what was decided is carried out all the same.
_PUSH: Final = '#!lua flags=allow-oom\nreturn redis.call("LPUSH", KEYS[1], ARGV[1])'


class Channel(redis.Channel):
    """One that keeps no books about the queues of hosts, and connects as the registry does."""

    from_transport_options = (*redis.Channel.from_transport_options, "address")
    address: Address
    _in_poll: Any  # the connection on which a message is waited for

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.async_pool.disconnect(inuse_connections=False)  # of its first ping: whoever consumes connects

    def close(self) -> None:
        """Without waiting for the answer to its last question, unless it is there: stock kombu waits for all of it."""
        asked = self._in_poll
        if asked and not asked.can_read(timeout=0):
            asked.disconnect()
            self._in_poll = None
        super().close()

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        consuming = super().basic_consume(queue, *args, **kwargs)
        self.pool.disconnect(inuse_connections=False)  # by which the queue was declared: nothing more is asked there
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
        """Without a transaction, of which a full Redis 7.0 refuses every command, also one that reads."""
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
    brpop_timeout = 30  # seconds that a worker waits for a message before it asks again; one that comes is had at once

    def _deliver(self, message: Any, queue: str | None) -> Any:
        if queue and _is_bell(queue):
            try:
                message = plain_message(message, queue)
            except Exception as odd:  # whatever there is about it, it is no message
                _log_drop(queue, odd)
                return None
        return super()._deliver(message, queue)


def plain_message(found: Any, queue: str) -> dict[str, Any]:
    """A message for Celery with the task, the id and the arguments of one that was found in a queue, and nothing else.

    Celery looks into much of a message before it calls a task, and ends its worker for what it does not expect there.

    Raises:
        Exception: of whatever kind, if it is none: task, id and arguments are texts.
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


def install() -> None:
    """Have kombu take this transport for all that is Redis, in this process."""
    for alias in ("redis", "rediss"):
        TRANSPORT_ALIASES[alias] = f"{__name__}:Transport"
