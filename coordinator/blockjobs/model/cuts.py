"""The point in time of a source: the ways to request a cut, the cut itself, and the skew of a group of cuts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from blockjobs.model import ids
from blockjobs.model.errors import BadInput

CRASH: Final = "crash"  # a consistency: the state after a power cut, because QEMU held writes of its guest in memory
AUTO, REFLINK, NONE, COMMAND = "auto", "reflink", "none", "command:"
EXPECTED: Final = f"{AUTO}, {REFLINK}, {NONE} or {COMMAND}NAME was expected"


def checked_snapshot(text: str) -> str:
    """``text``, if it is a valid way to make a cut.  Raises BadInput."""
    if text.startswith(COMMAND):
        ids.run_name(snapshot_command(text))
    elif text not in (AUTO, REFLINK, NONE):
        raise BadInput(f"'{text[:60]}' is not a snapshot: {EXPECTED}")
    return text


def snapshot_command(how: str) -> str:
    """The name of the command for the cut; "" without a command."""
    return how.removeprefix(COMMAND) if how.startswith(COMMAND) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The data read by a job instead of its source.  Times in seconds since the epoch, by Redis' clock."""

    how: str = NONE  # or reflink, command:NAME
    why: str = ""  # for ``none``: why no better cut was made
    path: str = ""  # the path to read
    identity: tuple[Any, ...] = ()  # identity of the file at ``path``
    begin: float = 0.0  # earliest instant of the cut
    end: float = 0.0  # latest instant of the cut
    frozen: float = 0.0  # seconds for which the source stood still; 0: not frozen
    consistency: str = ""  # or CRASH: then the cut has no single instant

    def __bool__(self) -> bool:
        return self.how != NONE

    def to_dict(self) -> dict[str, Any]:
        return {
            "how": self.how, "why": self.why, "path": self.path, "identity": list(self.identity),
            "begin": self.begin, "end": self.end, "frozen": self.frozen, "consistency": self.consistency,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any]) -> Cut:
        known = {name: keys[name] for name in cls.__slots__ if name in keys}
        return cls(**known | {"identity": tuple(keys.get("identity", ()))})

    def told(self) -> dict[str, Any]:
        """The cut as shown in manifests and passed to programs."""
        if not self:
            return {"how": NONE} | ({"why": self.why} if self.why else {})
        return {
            "how": self.how, "at": iso_time(self.begin), "seconds": round(self.end - self.begin, 6),
            "frozen": round(self.frozen, 6), **({"consistency": self.consistency} if self.consistency else {}),
        }  # fmt: skip


def cut_skew(spans: Iterable[tuple[float, float]]) -> float | None:
    """The latest end minus the earliest begin, or None without cuts.

    No two cuts of a group are further apart.
    """
    ends = list(spans)
    return max(end for _, end in ends) - min(begin for begin, _ in ends) if ends else None


def iso_time(at: float) -> str:
    """A time in ISO 8601, in UTC, to the microsecond, the resolution of Redis' clock."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
