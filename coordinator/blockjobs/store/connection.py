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
    options: dict[str, Any] = {
        "socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": retry, "client_name": "blockjobs",
        "protocol": 3,
    }  # fmt: skip
    try:
        if at_most:
            waiting = redis.BlockingConnectionPool.from_url(url, max_connections=at_most, timeout=timeout, **options)
            client = redis.Redis.from_pool(waiting)
        else:
            client = redis.Redis.from_url(url, **options)
        # An option of the URL that nobody knows would be found by the first command only.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (ValueError, TypeError):  # their texts quote the URL, with the password in it
        raise NoRedis(
            f"Redis URL '{redacted(url)}' cannot be used: redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] or "
            "unix://PATH?db=DB was expected (in a password @ / ? # and % are written %40 %2F %3F %23 %25)"
        ) from None
    return client


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


def redacted(url: str) -> str:
    """``url`` without anything in it that may be a secret, however malformed it is."""
    scheme, sep, rest = url.partition("://")
    if not sep:
        return "***"
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    place, _, query = place.partition("#")[0].partition("?")
    options = "&".join(pair for pair in query.split("&") if pair.startswith("db="))
    shown = user if user.isalnum() else "***" if user else ""
    return f"{scheme}{sep}{shown}{colon and ':***'}{at}{place}{options and '?'}{options}"


def broker_url(url: str) -> str:
    """The same server as Celery spells it."""
    if not url.startswith("unix://"):
        return url
    path, _, query = url.removeprefix("unix://").partition("?")
    database = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair).get("db", "0")
    return f"redis+socket://{path}?virtual_host={database}"


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
