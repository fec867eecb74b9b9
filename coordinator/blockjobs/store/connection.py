"""Clients of Redis: bytes in and out, explicit short timeouts, and what a registry must be set to.

Two kinds.  ``connect``: few retries, for idempotent scripts (every one of ours is).  ``line``: none, for an
attempt, which knows better than a library how long it may wait.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final, TypeAlias

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from blockjobs.model.errors import NoRedis
from blockjobs.store.address import parse, redacted

log = logging.getLogger(__name__)

# A redis.Redis that gives bytes.  redis-py types every reply for text and bytes, sync and async at once, which
# says nothing; what the store makes of the replies is typed.
Client: TypeAlias = Any

LINE_TIMEOUT: Final = 1.0  # seconds; an attempt must notice a dead Redis well before its lease ends
CLIENT_TIMEOUT: Final = 5.0
SETTINGS: Final = {
    # setting: (what we need, why)
    "appendonly": ("yes", "a restart would lose the registry"),
    "appendfsync": ("always", "'everysec' lost acknowledged writes on a plain kill -9"),
    "maxmemory-policy": ("noeviction", "an eviction would delete jobs"),
}


# What a server says that takes no writes from anybody: it is full, a replica, or cannot write to its disk.
_CLOSED: Final = re.compile(
    r"(Command # \d+ .* of pipeline caused error: )?(OOM|READONLY|MISCONF|MASTERDOWN|NOREPLICAS|CLUSTERDOWN)\b",
    re.DOTALL,
)


def connect(url: str, *, at_most: int = 0) -> Client:
    """A client for everything but an attempt's control line.

    ``at_most``: connections, 0: any number; a thread waits for one that is free, no longer than for an answer.
    """
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3)
    return _client(url, CLIENT_TIMEOUT, retry, at_most)


def line(url: str) -> Client:
    """A client for an attempt: answers or fails within a second, never sends anything twice."""
    return _client(url, LINE_TIMEOUT, Retry(NoBackoff(), 0))


def _client(url: str, timeout: float, retry: Retry, at_most: int = 0) -> Client:
    address = parse(url)
    options: dict[str, Any] = {
        "connection_class": address.connection_class, **address.parameters(), "socket_timeout": timeout,
        "retry": retry, "client_name": "blockjobs", "protocol": 3,
    }  # fmt: skip
    if address.scheme != "unix":
        options["socket_connect_timeout"] = timeout
    pool: type[Any] = redis.BlockingConnectionPool if at_most else redis.ConnectionPool
    more = {"max_connections": at_most, "timeout": timeout} if at_most else {}
    return redis.Redis.from_pool(pool(**options, **more))


def is_absence(error: redis.RedisError) -> bool:
    """Whether Redis does not answer, or answers nobody: no fault of what was asked.

    Everything else that it says (a script's error, a key of another kind, a right that is missing) is about the very
    thing that was asked for.
    """
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return True
    return isinstance(error, redis.exceptions.OutOfMemoryError | redis.exceptions.ReadOnlyError) or bool(
        _CLOSED.match(str(error))
    )


def milliseconds(time: tuple[int, int]) -> int:
    """A reply of Redis' TIME, which is seconds and microseconds: the one clock of the registry."""
    seconds, micros = time
    return int(seconds * 1000 + micros // 1000)


def check(client: Client, url: str) -> None:
    """Refuse a server that does not answer or would lose what it acknowledged.

    Raises:
        NoRedis: not reachable, or a setting of ``SETTINGS`` is wrong (where CONFIG is denied: a warning).
    """
    try:
        client.ping()
    except redis.RedisError as error:
        raise NoRedis(f"Redis is not reachable at {redacted(url)}: {error}") from None
    for name, (needed, why) in SETTINGS.items():
        try:
            found = client.config_get(name).get(name)
        except redis.ResponseError:
            log.warning(
                "Redis at %s does not let us read its settings: '%s %s' not checked", redacted(url), name, needed
            )
            continue
        if found is not None and _text(found) != needed:
            raise NoRedis(f"Redis at {redacted(url)} has '{name} {_text(found)}': '{needed}' is needed, because {why}")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
