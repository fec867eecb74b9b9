"""Hanging paths on a host, as reported by its heartbeat: kernel calls without a return for a while."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from blockjobs.model import volumespec
from blockjobs.model.jobs import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class HangingPath:
    """One kernel call without a return.

    ``path``: the argument of the call.  ``point``: the mount point of the file system.  ``beneath``: the mount points
    of other file systems below ``point``.  ``since``: seconds since the epoch.  ``about``: a description of the
    operation.  ``transaction`` and ``job``: the work that made the call, "" without one; ``job`` is set only for a
    hanging attempt.
    """

    path: str
    point: str = ""
    beneath: tuple[str, ...] = ()
    since: float = 0.0
    about: str = ""
    transaction: str = ""
    job: str = ""

    def holds(self, path: str) -> bool:
        """Whether a path lies on the hanging file system."""
        return _is_below(path, self.point) and not any(_is_below(path, point) for point in self.beneath)

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path, "point": self.point, "beneath": list(self.beneath), "since": self.since,
            "about": self.about, "transaction": self.transaction, "job": self.job,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any]) -> Self:
        return cls(
            path=str(keys["path"]),
            point=str(keys.get("point", "")),
            beneath=tuple(keys.get("beneath", ())),
            since=float(keys.get("since", 0.0)),
            about=str(keys.get("about", "")),
            transaction=str(keys.get("transaction", "")),
            job=str(keys.get("job", "")),
        )


def hanging_of(facts: Mapping[str, Any]) -> tuple[HangingPath, ...]:
    """The hanging paths in a host's facts, the longest hang first."""
    return tuple(map(HangingPath.from_dict, facts.get("hanging", ())))


def hanging_under(hanging: Iterable[HangingPath], spec: JobSpec) -> HangingPath | None:
    """The first hanging path on the file system of the job's source or target; all paths are of the job's host."""
    volumes = [spec.target] + [spec.source] * (spec.source.host == spec.host)
    paths = [each.filename for volume in volumes for each in volumespec.files_and_devices(volume.volume)]
    return next((each for each in hanging if any(map(each.holds, paths))), None)


def _is_below(path: str, point: str) -> bool:
    return bool(point) and (path == point or path.startswith(point.rstrip("/") + "/"))
