"""Records that cannot be read, as those of a newer release: each hides itself only, and is named with what is wrong.

Readers take every record by way of an ``Odd``: it leaves out and names, or, for those that must not decide on a part of
what there is, refuses (``STRICT``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from blockjobs.model.errors import BadInput, Refused
from blockjobs.model.volumespec import printable

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST: Final = 1000  # names that are remembered; of a stream of odd events the oldest ones go
FAULTS: Final = (ValueError, LookupError, TypeError, AttributeError, OverflowError, BadInput)  # what decoding raises


class Unreadable(Refused):
    """A record that this release cannot read; ``name`` says which, ``why`` what is wrong with it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} cannot be read: {why}")
        self.name, self.why = name, why


class Odd:
    """What the readers of one registry left out.  Any thread may use it."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._lock = threading.Lock()

    def read(self, name: str, decode: Callable[[], T]) -> T | None:
        """What ``decode`` returns; None where it cannot, and then the record is named."""
        try:
            value = demand(name, decode)
        except Unreadable as odd:
            self._note(odd)
            return None
        with self._lock:
            self._found.pop(name, None)
        return value

    def found(self) -> dict[str, str]:
        """The names of what is left out, with what is wrong."""
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
    """Leaves nothing out: whoever forgets, removes or waits for the last one has to know of all."""

    def read(self, name: str, decode: Callable[[], T]) -> T | None:
        return demand(name, decode)


STRICT: Final = _Strict()


def demand(name: str, decode: Callable[[], T]) -> T:
    """What ``decode`` returns.

    Raises:
        Unreadable: it cannot.
    """
    try:
        return decode()
    except FAULTS as error:
        raise Unreadable(name, _why(error)) from error


def _why(error: Exception) -> str:
    text = f"there is no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return printable(text)[:300]
