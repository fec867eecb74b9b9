"""The choice of the next errand: the pure part of the lanes.

An errand names the touched file systems; errands on the same file systems share a lane. Rules: a lane has at most
``WIDTH`` errands under way; an errand is never queued twice, nor under way twice; a file system with ``WIDTH`` hanging
errands gets no more; hanging errands do not count among the at most ``MOST`` errands under way.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# errands under way in a lane, and hanging errands on a file system before the file system gets no more
WIDTH: Final = 2
MOST: Final = 8  # errands under way at once, without hanging ones
LONGEST: Final = 10_000  # errands waiting in a lane

Lane = frozenset[str]  # the mount points of the file systems touched by an errand


@dataclass(frozen=True, slots=True)
class Errand:
    """One piece of work.

    ``key``: errands with equal keys are the same. ``paths``: the touched paths, for people. ``until``: the monotonic
    time after which the result is useless. ``done`` is called with the result, once, by some thread of the lanes; None:
    no result, as the process of the errand is gone, or the time was over.
    """

    kind: str
    key: tuple[str, ...]
    lane: Lane
    words: Mapping[str, Any]
    about: str = ""
    paths: tuple[str, ...] = ()
    until: float = float("inf")
    done: Callable[[Any], None] = field(default=lambda _: None, compare=False)


class ErrandBoard:
    """The waiting errands and the errands under way. For one thread at a time: the owner has a lock."""

    def __init__(self, width: int = WIDTH, most: int = MOST, longest: int = LONGEST) -> None:
        self._width, self._most, self._longest = width, most, longest
        self._waiting: dict[Lane, deque[Errand]] = {}
        self._queued: set[tuple[str, ...]] = set()
        self._busy: dict[tuple[str, ...], Lane] = {}

    def put(self, errand: Errand) -> bool:
        """Queue an errand; return False if the same errand waits already, or the lane is full.

        An errand under way is queued once more: files read before may have changed since.
        """
        queue = self._waiting.setdefault(errand.lane, deque())
        if errand.key in self._queued or len(queue) >= self._longest:
            return False
        self._queued.add(errand.key)
        queue.append(errand)
        return True

    def take(self, hanging: Mapping[tuple[str, ...], str]) -> Errand | None:
        """The next errand to begin; None: none may begin. ``hanging``: keys of hanging errands -> mount point."""
        if len(self._busy.keys() - hanging.keys()) >= self._most:
            return None
        stuck = Counter(hanging.values())
        blocked = {point for point, number in stuck.items() if number >= self._width}
        under_way = Counter(self._busy.values())
        for lane in list(self._waiting):
            if under_way[lane] >= self._width or lane & blocked:
                continue
            if (errand := self._first(lane)) is not None:
                # The lane goes behind the others.
                self._waiting[lane] = self._waiting.pop(lane)
                self._begin(errand)
                return errand
        return None

    def end(self, errand: Errand) -> None:
        """Note the end of an errand."""
        self._busy.pop(errand.key, None)

    def expire(self, now: float) -> list[Errand]:
        """Remove, and return, the waiting errands whose time is over."""
        late = [errand for queue in self._waiting.values() for errand in queue if errand.until <= now]
        for errand in late:
            self._remove(errand)
        return late

    def waiting(self) -> Iterable[Errand]:
        """Every waiting errand."""
        return [errand for queue in self._waiting.values() for errand in queue]

    def _first(self, lane: Lane) -> Errand | None:
        return next((errand for errand in self._waiting[lane] if errand.key not in self._busy), None)

    def _begin(self, errand: Errand) -> None:
        self._remove(errand)
        self._busy[errand.key] = errand.lane

    def _remove(self, errand: Errand) -> None:
        queue = self._waiting[errand.lane]
        queue.remove(errand)
        self._queued.discard(errand.key)
        if not queue:
            del self._waiting[errand.lane]
