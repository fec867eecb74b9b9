"""Unreadable records, such as records of a newer release: a record is left out alone, and named with the fault.

Readers decode every record through an ``Odd``, and an unreadable record is left out and named.  Readers that must not
decide on partial data use ``STRICT``, and an unreadable record is refused.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from blockjobs.model.errors import BadInput, Refused
from blockjobs.model.volumespec import printable_text

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST: Final = 1000  # names remembered; beyond this number the oldest names are dropped
FAULTS: Final = (ValueError, LookupError, TypeError, AttributeError, OverflowError, BadInput)  # exceptions of decoding


class Unreadable(Refused):
    """A record that this release cannot read; ``name`` is the record, ``why`` the fault."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} cannot be read: {why}")
        self.name, self.why = name, why


class Odd:
    """The records left out by the readers of one registry.  Safe for any thread."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._lock = threading.Lock()

    def read(self, name: str, decode: Callable[[], T]) -> T | None:
        """The result of ``decode``; None if decoding fails, and the record is named."""
        try:
            value = decode_or_raise(name, decode)
        except Unreadable as odd:
            self._note(odd)
            return None
        with self._lock:
            self._found.pop(name, None)
        return value

    def found(self) -> dict[str, str]:
        """The names of the left-out records, with their faults."""
        with self._lock:
            return dict(self._found)

    def _note(self, odd: Unreadable) -> None:
        with self._lock:
            known = self._found.get(odd.name) == odd.why
            self._found[odd.name] = odd.why
            if len(self._found) > MOST:
                del self._found[next(iter(self._found))]
        if not known:
            log.warning("%s, and is left out", odd)


class _Strict(Odd):
    """Leaves no record out: code that forgets, removes or waits for the last record needs every record."""

    def read(self, name: str, decode: Callable[[], T]) -> T | None:
        return decode_or_raise(name, decode)


STRICT: Final = _Strict()


def decode_or_raise(name: str, decode: Callable[[], T]) -> T:
    """The result of ``decode``.

    Raises:
        Unreadable: decoding failed.
    """
    try:
        return decode()
    except FAULTS as error:
        raise Unreadable(name, _fault_text(error)) from error


def _fault_text(error: Exception) -> str:
    text = f"there is no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return printable_text(text)[:300]
