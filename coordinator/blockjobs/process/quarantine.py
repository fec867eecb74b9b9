"""Quarantine of failing items: a failing item is put aside, named, and retried after growing pauses; other items go on.

A loop passes every item to ``handle``: a transaction, a run, a host, an event.  The error of an item affects only the
item.  An absent Redis, or a Redis that takes no writes, is no item's error, and ends the turn of the loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import redis

from blockjobs.process.clock import seconds_since_boot
from blockjobs.registry.connection import is_absence

FIRST: Final = 1.0  # seconds until the first retry of a failed item; every further failure doubles the pause
LONGEST: Final = 300.0
LONGEST_OF_A_PART: Final = 10.0  # for a part of a daemon's work that every item depends on

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Aside:
    """A failed item: the error, the number of failures, and the end of the pause."""

    error: str
    failures: int = 1
    until: float = 0.0

    def pause(self, longest: float) -> float:
        """Seconds of pause after the last failure."""
        return float(min(longest, FIRST * 2.0 ** min(self.failures - 1, 20)))


class Quarantine:
    """The quarantine of one process, safe for any thread.  A lost quarantine costs one more try per item."""

    def __init__(self, clock: Callable[[], float] = seconds_since_boot) -> None:
        self._clock = clock
        self._aside: dict[str, Aside] = {}
        self._lock = threading.Lock()

    def part(self, name: str, call: Callable[[], T], /) -> T | None:
        """Like ``handle``, for a part of a daemon's work, with only short pauses."""
        return self.handle(name, call, LONGEST_OF_A_PART)

    def handle(self, item: str, call: Callable[[], T], longest: float = LONGEST, /) -> T | None:
        """The result of ``call``; None if ``call`` fails now, or failed before and still rests.  ``longest``: seconds.

        Raises:
            redis.RedisError: Redis is away, or takes no writes (``is_absence``).
        """
        if self.rests(item):
            return None
        try:
            done = call()
        except redis.RedisError as error:
            if is_absence(error):
                raise
            self._put_aside(item, error, longest)
        except Exception as error:
            self._put_aside(item, error, longest)
        else:
            with self._lock:
                if self._aside.pop(item, None) is not None:
                    log.info("%s: goes on", item)
            return done
        return None

    def rests(self, item: str) -> bool:
        """Whether an item failed, and is not tried yet."""
        found = self._aside.get(item)
        return found is not None and self._clock() < found.until

    def forget(self, item: str) -> None:
        """Forget an item that is gone: a later item of the same name starts anew."""
        with self._lock:
            self._aside.pop(item, None)

    def over(self, kind: str) -> Iterator[str]:
        """The items with names starting with ``kind`` and with the pause over."""
        with self._lock:
            names = [name for name in self._aside if name.startswith(kind)]
        yield from (name for name in names if not self.rests(name))

    def told(self) -> dict[str, str]:
        """The error and the number of failures of every item put aside, by name.

        An item not tried for a long time no longer exists, such as a removed run, and is forgotten.
        """
        now = self._clock()
        with self._lock:
            self._aside = {name: each for name, each in self._aside.items() if now < each.until + LONGEST}
            return {
                name: f"{each.error} ({each.failures} times)" if each.failures > 1 else each.error
                for name, each in sorted(self._aside.items())
            }

    def _put_aside(self, item: str, error: Exception, longest: float) -> None:
        text = f"{type(error).__name__}: {error}"
        with self._lock:
            found = self._aside.get(item)
            if found is None:
                found = self._aside[item] = Aside(text)
            else:
                found.failures += 1
                found.error = text
            pause = found.pause(longest)
            found.until = self._clock() + pause
        if found.failures == 1:
            log.error("%s: put aside: %s", item, found.error, exc_info=error)
        else:
            log.error("%s: put aside for %.0f s: %s", item, pause, found.error)
