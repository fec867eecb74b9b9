"""Fitness of a server for the registry: the server's own facts, and the refusal of a server that would lose data.

The rules are a table in ``model.checkup``, used by ``doctor`` and by every process at its start.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import redis

from blockjobs.model.checkup import Finding, Level, examine_fact
from blockjobs.model.errors import NoRedis
from blockjobs.registry import keys
from blockjobs.registry.address import redacted_url
from blockjobs.registry.connection import Client

log = logging.getLogger(__name__)

SETTINGS: Final = {
    # setting: (needed value, reason)
    "appendonly": ("yes", "a restart would lose the registry"),
    "appendfsync": ("always", "'everysec' lost acknowledged writes on a plain kill -9"),
    "maxmemory-policy": ("noeviction", "an eviction would delete jobs"),
}
# The first versions that replay the append-only file regardless of the rights of the user ``default``.
REPLAYS: Final = {"redis": (8, 6, 0), "valkey": (9, 1, 2)}
_KEY: Final = keys.trial()
# The commands inside MULTI and EXEC in the append-only file: every write command of this project, with arguments.
REPLAYED: Final = (
    ("MULTI",), ("EXEC",), ("DEL", _KEY), ("HDEL", _KEY, "f"), ("HINCRBY", _KEY, "f", "1"), ("HSET", _KEY, "f", "v"),
    ("HSETNX", _KEY, "f", "v"), ("INCR", _KEY), ("LPUSH", _KEY, "v"), ("LREM", _KEY, "0", "v"),
    ("LSET", _KEY, "0", "v"), ("LTRIM", _KEY, "0", "0"), ("PEXPIREAT", _KEY, "1"), ("RENAME", _KEY, _KEY),
    ("RPUSH", _KEY, "v"), ("SADD", _KEY, "v"), ("SET", _KEY, "v"), ("SREM", _KEY, "v"), ("XADD", _KEY, "*", "f", "v"),
    ("XDEL", _KEY, "1-1"), ("XTRIM", _KEY, "MAXLEN", "1"), ("ZADD", _KEY, "1", "v"), ("ZREM", _KEY, "v"),
    ("ZREMRANGEBYSCORE", _KEY, "0", "1"),
)  # fmt: skip

Fact = tuple[str, Mapping[str, Any]]


def expect_fit_server(client: Client, url: str, *, warn: bool = True) -> None:
    """Refuse a server that does not answer or would lose acknowledged writes.

    ``warn``: log the checks skipped because the user of the URL lacks a right.

    Raises:
        NoRedis: the server is not reachable, or not fit; the text names one reason.
    """
    try:
        client.ping()
    except redis.RedisError as error:
        raise NoRedis(f"Redis is not reachable at {redacted_url(url)}: {error}") from None
    for finding in examine_server(client):
        if finding.level is Level.ERROR:
            raise NoRedis(f"Redis at {redacted_url(url)}: {finding.text}; {finding.advice}")
        if finding.level is Level.WARNING and warn:
            log.warning("Redis at %s: %s; %s", redacted_url(url), finding.text, finding.advice)


def examine_server(client: Client) -> list[Finding]:
    """The findings about a server for the registry."""
    return [finding for kind, fact in read_server(client) for finding in examine_fact(kind, "redis", fact)]


def read_server(client: Client) -> Iterator[Fact]:
    """The facts as (kind of rule, fact), including missing rights.  Raises RedisError: Redis went away."""
    yield from read_kind(client)
    yield from read_settings(client)


def read_kind(client: Client) -> Iterator[Fact]:
    """The version, role and mode of the server, and the rights for a replay of the append-only file."""
    (info,) = client.pipeline(transaction=False).info().execute(raise_on_error=False)
    server = None if _is_permission_denied(info) else _server_facts(info)
    yield ("asked", {"what": "its version, role and mode", "right": "+info", "known": server is not None})
    if server:
        yield ("server", server)
        if server["replays"] is False and server["version-number"] >= (7,):
            yield from _default_user(client, server)


def read_settings(client: Client) -> Iterator[Fact]:
    """The settings of the server."""
    pipe = client.pipeline(transaction=False)
    for name in SETTINGS:
        pipe.config_get(name)
    settings = pipe.execute(raise_on_error=False)
    known = [not _is_permission_denied(found) for found in settings]
    yield ("asked", {"what": "its settings", "right": "+config|get", "known": all(known)})
    for (name, (needed, why)), found, told in zip(SETTINGS.items(), settings, known, strict=True):
        if told and name in found:
            yield ("setting", {"name": name, "needed": needed, "why": why, "found": _decode_text(found[name])})


def _server_facts(info: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get("valkey_version") or info["redis_version"])
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    return {
        "name": kind.capitalize(), "version": version, "version-number": number, "role": info["role"],
        "cluster": bool(info.get("cluster_enabled")), "replays": number >= REPLAYS[kind],
        "fixed": ".".join(map(str, REPLAYS[kind])), "too-old": kind == "redis" and number < (7,),
    }  # fmt: skip


def _default_user(client: Client, server: Mapping[str, Any]) -> Iterator[Fact]:
    """Whether the user of the replay of the append-only file may run the commands in the file."""
    pipe = client.pipeline(transaction=False)
    for words in REPLAYED:
        pipe.execute_command("ACL", "DRYRUN", "default", *words)
    answers = pipe.execute(raise_on_error=False)
    yield (
        "asked",
        {
            "what": "the rights of its user default",
            "right": "+acl|dryrun",
            "known": not any(map(_is_permission_denied, answers)),
        },
    )
    refused = [
        words[0] for words, answer in zip(REPLAYED, answers, strict=True)
        if not _is_permission_denied(answer) and _decode_text(answer) not in ("OK", "True")
    ]  # fmt: skip
    yield ("default-user", {**server, "refused": ", ".join(refused)})


def _is_permission_denied(answer: object) -> bool:
    """Whether an answer is a refusal for a missing right.  Raises RedisError for any other error."""
    if isinstance(answer, redis.exceptions.NoPermissionError):
        return True
    if isinstance(answer, redis.RedisError):
        raise answer
    return False


def _decode_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
