"""Items that could not be handled: each is put aside, named, and tried again after growing pauses; the others go on.

A loop hands each of its items to ``handle``: a transaction, a run, a host, an event.  An error of one of them is that
item's alone.  That Redis does not answer, or takes no writes, is no item's error: it ends the turn of the loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import redis

from blockjobs.process.clock import boottime
from blockjobs.registry.connection import is_absence

FIRST: Final = 1.0  # seconds until what failed once is tried again; each further failure doubles them
LONGEST: Final = 300.0
LONGEST_OF_A_PART: Final = 10.0  # of a part of a daemon's work that concerns everybody

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Aside:
    """An item that failed: with what, how often, and until when it rests."""

    error: str
    failures: int = 1
    until: float = 0.0

    def pause(self, longest: float) -> float:
        """Seconds that it rests behind its last failure."""
        return float(min(longest, FIRST * 2.0 ** min(self.failures - 1, 20)))


class Quarantine:
    """Of one process; any thread may use it.  Losing it costs one more try of each item."""

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._aside: dict[str, Aside] = {}
        self._lock = threading.Lock()

    def part(self, name: str, call: Callable[[], T], /) -> T | None:
        """``handle`` for a part of a daemon's work, which is never left alone for long."""
        return self.handle(name, call, LONGEST_OF_A_PART)

    def handle(self, item: str, call: Callable[[], T], longest: float = LONGEST, /) -> T | None:
        """What ``call`` returns; None where it failed now, or failed before and still rests.  ``longest``: seconds.

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
        """The item is gone: whoever comes under its name is another one."""
        with self._lock:
            self._aside.pop(item, None)

    def over(self, kind: str) -> Iterator[str]:
        """The items whose names begin with ``kind`` and whose pause is over."""
        with self._lock:
            names = [name for name in self._aside if name.startswith(kind)]
        yield from (name for name in names if not self.rests(name))

    def told(self) -> dict[str, str]:
        """What stands aside, by its name: the error, and how often it came.

        An item that nobody has tried for long is gone, as a run is that was removed: it is forgotten.
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
