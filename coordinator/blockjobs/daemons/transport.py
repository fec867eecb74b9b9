"""Kombu's transport over Redis, reduced to what a doorbell needs: a list for each queue of a host, and nothing else.

A message names a job or a step, and whoever waits rings again: so nothing is written about who has taken a message, and
nothing about which queue belongs to which exchange, as every queue has one of its own name.  A host's user needs no
right but to its own two lists.  Celery's events, which are display only, go as in stock kombu.
"""

from __future__ import annotations

from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.json import dumps

from blockjobs.store.address import Address

COPY, STEPS = "copy.", "steps."  # what the queues of hosts begin with
OPTIONS: Final = {"ack_emulation": False, "priority_steps": [0]}

_OF_TCP: Final = ("host", "port", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options")
# A bell goes through on a full Redis: what was decided is carried out all the same.
_PUSH: Final = '#!lua flags=allow-oom\nreturn redis.call("LPUSH", KEYS[1], ARGV[1])'


class Channel(redis.Channel):
    """One that keeps no books about the queues of hosts, and connects as the registry does."""

    from_transport_options = (*redis.Channel.from_transport_options, "address")
    address: Address

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

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if not _is_bell(queue):
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]  # the stubs lack it

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        return [(exchange, "", exchange)] if _is_bell(exchange) else super().get_table(exchange)


class Transport(redis.Transport):
    Channel = Channel


def _is_bell(name: str) -> bool:
    return name.startswith((COPY, STEPS))


def install() -> None:
    """Have kombu take this transport for all that is Redis, in this process."""
    for alias in ("redis", "rediss"):
        TRANSPORT_ALIASES[alias] = f"{__name__}:Transport"
