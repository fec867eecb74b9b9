"""The format of the registry's content: a number that decides whether two versions of blockjobs may share a registry.

The coordinator and the finalizer raise the number to their own; any other process refuses a different number.  The
control machine is therefore upgraded first, and a host of another version reports the mismatch instead of misreading
data.
"""

from __future__ import annotations

import logging
from typing import Final

import redis

from blockjobs.model.errors import Refused
from blockjobs.registry import keys
from blockjobs.registry.connection import Client

log = logging.getLogger(__name__)

FORMAT: Final = 1  # raised by one when an older version would misread or miss data written by the new version


def raise_format(client: Client) -> None:
    """Start using a registry as the control plane.

    Raises:
        Refused: a newer version of blockjobs has used the registry.
        RedisError: Redis is away.
    """
    found = _read_format(client)
    if found is not None and found > FORMAT:
        raise Refused(f"{_newer_format_text(found)}: install that version here, too")
    if found != FORMAT:
        client.set(keys.registry_format(), FORMAT)


def expect_same_format(client: Client) -> None:
    """Start using a registry as a host or as a client.

    Raises:
        Refused: the control machine runs another version of blockjobs.
        RedisError: Redis is away.
    """
    try:
        found = _read_format(client)
    except redis.exceptions.NoPermissionError:
        right = f"%R~{keys.registry_format()}"
        log.warning("the version of the registry cannot be looked at; give this user %s in the ACL file", right)
        return
    if found is not None and found > FORMAT:
        raise Refused(f"{_newer_format_text(found)}: install that version here, too")
    if found is not None and found < FORMAT:
        raise Refused(
            f"the registry is of format {found}, and this version of blockjobs writes format {FORMAT}: "
            "upgrade the control machine first"
        )


def _read_format(client: Client) -> int | None:
    """The number; None for an unused registry."""
    found = client.get(keys.registry_format())
    if found is None:
        return None
    if not found.isdigit():
        raise Refused(
            f"key {keys.registry_format()} of the registry is no number: is this Redis used for anything else?"
        )
    return int(found)


def _newer_format_text(found: int) -> str:
    return f"the registry is of format {found}, and this version of blockjobs knows {FORMAT}"
