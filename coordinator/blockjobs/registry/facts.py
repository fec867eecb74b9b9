"""Facts reported by hosts, read host by host; a host with unreadable facts counts as silent, and is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from blockjobs.model.hanging import HangingPath, hanging_of
from blockjobs.model.ids import Host
from blockjobs.registry import codec

log = logging.getLogger(__name__)


def read_facts(host: Host, packed: bytes | None) -> tuple[Mapping[str, Any], str]:
    """A host's facts, and why they cannot be read ("" for readable facts)."""
    try:
        facts = codec.unpack_value(packed) if packed else {}
        if not isinstance(facts, dict):
            raise TypeError(f"a map was expected, not {type(facts).__name__}")
        hanging_of(facts)
        {**facts.get("aside", {})}
        int(facts.get("decision", 0))
    except Exception as error:  # any content by a later version or a fault concerns only this host
        return {}, name_unreadable(host, error)
    return facts, ""


def read_hanging(host: Host, packed: bytes | None) -> tuple[HangingPath, ...]:
    """The hanging paths on a host, as far as the facts can be read."""
    return hanging_of(read_facts(host, packed)[0])


def name_unreadable(host: Host, error: Exception) -> str:
    """Log once, and return, that a host's facts cannot be read by this version."""
    text = (
        f"what host {host} tells of itself is of a newer version of blockjobs, or damaged "
        f"({type(error).__name__}: {error})"
    )
    _log_once(text)
    return text


@lru_cache(maxsize=256)
def _log_once(text: str) -> None:
    log.error("%s: it counts as having told nothing", text)
