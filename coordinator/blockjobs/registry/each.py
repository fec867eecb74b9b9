"""How the items of a loop are handled: by default one behind the other, and the error of one ends the loop.

A daemon hands in ``Quarantine.handle``, which puts an item that fails aside and goes on with the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Each(Protocol):
    """Handles one item, which is named for people; returns what the call does, None where it was put aside."""

    def __call__(self, item: str, call: Callable[[], T], /) -> T | None: ...


def readable(name: bytes) -> str:
    """A name that Redis keeps, as people may read it, whatever its bytes are."""
    return name.decode(errors="backslashreplace")


def plainly(_item: str, call: Callable[[], T], /) -> T | None:
    """Call, and let every error through."""
    return call()
