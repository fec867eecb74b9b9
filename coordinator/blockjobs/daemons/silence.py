"""Workers fallen silent: heartbeat counters judged by the observer's own clock.

The rule: time counts only between two looks at most ``GAP`` apart.  After a longer gap, or when Redis was restarted,
every count starts again: the observer was away, not the observed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
GAP: Final = 4.0  # seconds


@dataclass(slots=True)
class Silence(Generic[Key]):
    """``limit``: seconds (CLOCK_BOOTTIME of the observer) a counter may stand still."""

    limit: float
    _seen: dict[Key, tuple[object, float]] = field(default_factory=dict)
    _moved: set[Key] = field(default_factory=set)
    _last: float | None = None

    def look(self, now: float, counters: Mapping[Key, object]) -> set[Key]:
        """The keys whose counter stood still for longer than the limit; keys that are gone are forgotten."""
        if self._last is None or now - self._last > GAP:
            self.restart()
        self._last = now
        self._moved = {
            key for key, count in counters.items()
            if key in self._moved or (key in self._seen and self._seen[key][0] != count)
        }  # fmt: skip
        self._seen = {
            key: (count, self._seen[key][1] if key in self._seen and self._seen[key][0] == count else now)
            for key, count in counters.items()
        }
        return {key for key, (_, since) in self._seen.items() if now - since > self.limit}

    def moved(self, key: Key) -> bool:
        """Whether a counter has moved since the counts began: a counter that stands still may be of a dead worker."""
        return key in self._moved

    def restart(self) -> None:
        """Forget every count."""
        self._seen.clear()
        self._moved.clear()
