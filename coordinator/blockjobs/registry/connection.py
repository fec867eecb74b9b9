"""Clients of Redis: bytes in and out, explicit short timeouts.

``connect_client`` makes a client with few retries, for idempotent scripts (every script of this project).
``connect_control_line`` makes a client without retries for an attempt, as the attempt decides how long to wait.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from blockjobs.registry.address import parse_address

# A redis.Redis with replies in bytes.  The reply types of redis-py cover text and bytes, sync and async at once, and
# are useless here; the values made from the replies are typed.
Client: TypeAlias = Any

LINE_TIMEOUT: Final = 1.0  # seconds; an attempt must notice a dead Redis well before the lease ends
CLIENT_TIMEOUT: Final = 5.0
# Errors of a server that refuses every write: full, a replica, or unable to write to disk.
_CLOSED: Final = re.compile(
    r"(Command # \d+ .* of pipeline caused error: )?"
    r"(OOM|READONLY|MISCONF|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|UNBLOCKED)\b",
    re.DOTALL,
)


def connect_client(url: str, *, at_most: int = 0) -> Client:
    """A client for everything but an attempt's control line.

    ``at_most``: connections, 0: unlimited; a thread waits for a free connection no longer than for an answer.
    """
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3)
    return _build_client(url, CLIENT_TIMEOUT, retry, at_most)


def connect_control_line(url: str, *, waits: float = 0.0) -> Client:
    """A client for an attempt: answers or fails within a second, never sends a command twice.

    ``waits``: seconds for which a command may block, added to the timeout.
    """
    return _build_client(url, waits + LINE_TIMEOUT, Retry(NoBackoff(), 0))


def _build_client(url: str, timeout: float, retry: Retry, at_most: int = 0) -> Client:
    address = parse_address(url)
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
    """Whether Redis does not answer, or refuses everybody, so that the request is not at fault.

    Any other error (of a script, a key of another kind, a missing right) concerns the request.
    """
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return True
    if isinstance(error, redis.exceptions.NoScriptError):  # it was started anew between two commands, once more
        return True
    return isinstance(error, redis.exceptions.OutOfMemoryError | redis.exceptions.ReadOnlyError) or bool(
        _CLOSED.match(str(error))
    )


def redis_milliseconds(time: tuple[int, int]) -> int:
    """Milliseconds from a reply of Redis' TIME (seconds and microseconds), the one clock of the registry."""
    seconds, micros = time
    return int(seconds * 1000 + micros // 1000)
