"""What a run asks for beside its jobs; a run's record keeps it as one dict, ``RunFields.to_dict``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFields:
    """``notify``: for each outcome (``failure``, ``partial``, ``success``) the URLs that are told of it."""

    file: str = ""
    notify: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file, "notify": {name: list(urls) for name, urls in self.notify.items()}}

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any]) -> RunFields:
        """Also of a record that has none of it."""
        return cls(
            file=keys.get("file", ""),
            notify={name: tuple(urls) for name, urls in keys.get("notify", {}).items()},
        )


class Verdict(IntEnum):
    """How a run ended; the number is the exit code."""

    ALL = 0
    FAILED = 1
    PARTIAL = 4  # not all of it, and the file says that this will do
