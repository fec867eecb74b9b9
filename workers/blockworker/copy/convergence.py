"""Whether a mirror comes up with its source: judged by the results of its passes. Pure; the time is handed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

PATIENCE: Final = 5  # dirty passes in a row before a report
AT_LEAST: Final = 2.0  # seconds that the passes have to take: a burst is no verdict
SHORTEST: Final = 0.1  # seconds of rest between two passes that do not converge
LONGEST: Final = 5.0


@dataclass(frozen=True, slots=True)
class PassRates:
    """Bytes a second: how fast the source changes, and how fast changes were copied."""

    passes: int
    dirty: int
    copy: int


@dataclass(slots=True)
class Convergence:
    _found: list[tuple[float, int]] = field(default_factory=list)  # end and dirty bytes of every pass in a row
    diverging: bool = False

    def look(self, began: float, ended: float, dirty: int) -> PassRates | None:
        """Note a pass; return its rates if it is clear by now that passes do not become cleaner, else None."""
        if not dirty:
            self._found, self.diverging = [], False
            return None
        before = self._found[-1][0] if self._found else began
        self._found.append((ended, dirty))
        recent = [found for _, found in self._found[-PATIENCE:]]
        # The dirty bytes shrink as long as each few passes halve them: then the end is near, however slow.
        stays = len(recent) == PATIENCE and recent[-1] * 2 > recent[0]
        self.diverging = stays and ended - self._found[0][0] >= AT_LEAST
        if not self.diverging:
            return None
        return PassRates(
            len(self._found), int(dirty / max(ended - before, 1e-3)), int(dirty / max(ended - began, 1e-3))
        )

    @property
    def rest(self) -> float:
        """Seconds to rest before the next pass: none while it converges, longer and longer while it diverges."""
        if not self.diverging:
            return 0.0 if len(self._found) < PATIENCE else SHORTEST
        return float(min(LONGEST, SHORTEST * 2 ** min(len(self._found) - PATIENCE, 10)))
