"""Detection of overdue names: names of run files without a successful run within the allowed time.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blockjobs.model.attention import Cause, Need
from blockjobs.model.policies import span_text


@dataclass(frozen=True, slots=True, kw_only=True)
class NameSeen:
    """A name with a time limit between successes.  Times in milliseconds by the steady clock.

    ``seconds``: the limit in the run file.  ``since``: when the limit was first set.  ``good``: the end of the last
    successful run ``run``, 0 without one.  ``told``: the mark of the last notice.  ``jumps``: milliseconds by which
    Redis' clock is ahead of the steady clock.
    """

    name: str
    seconds: int
    since: int
    now: int
    good: int = 0
    run: str = ""
    file: str = ""
    urls: Sequence[str] = ()
    told: str = ""
    jumps: int = 0

    @property
    def began(self) -> int:
        """The start of the wait for a successful run."""
        return max(self.since, self.good)

    @property
    def is_overdue(self) -> bool:
        return self.now - self.began > 1000 * self.seconds

    @property
    def waited(self) -> int:
        """Whole seconds since ``began``."""
        return max(0, self.now - self.began) // 1000

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "overdue": self.is_overdue, "allowed": self.seconds, "waited": self.waited,
            "last-good": {"run": self.run, "ended": (self.good + self.jumps) / 1000} if self.good else None,
            "file": self.file or None,
        }  # fmt: skip


def overdue_text(seen: NameSeen) -> str:
    """The state of a name as one line."""
    last = f"the last one was {seen.run}" if seen.good else "none ever did"
    waited = span_text(seen.waited if seen.waited < 60 else seen.waited // 60 * 60)
    return f"{seen.name}: no run succeeded for {waited}, {span_text(seen.seconds)} are allowed; {last}"


def overdue_need(seen: NameSeen) -> Need:
    """The need for an overdue name; the mark is the same until a run succeeds, so that only one notice is sent."""
    return Need(cause=Cause.OVERDUE, subject=seen.name, text=overdue_text(seen), since=seen.began, mark=str(seen.began))
