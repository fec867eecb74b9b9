"""Handling of the items of a loop: by default in sequence, and the first error ends the loop.

A daemon passes ``Quarantine.handle``, which puts a failing item aside and continues with the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Each(Protocol):
    """Handles one item, named for people; returns the result of the call, None for an item put aside."""

    def __call__(self, item: str, call: Callable[[], T], /) -> T | None: ...


def readable_name(name: bytes) -> str:
    """A name from Redis as readable text, for any bytes."""
    return name.decode(errors="backslashreplace")


def call_unguarded(_item: str, call: Callable[[], T], /) -> T | None:
    """Call, and let every error through."""
    return call()
