"""Forecast of a run from the answers of hosts about its jobs: room, duration and obstacles.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from blockjobs.model.ids import Host, JobId
from blockjobs.model.jobs import JobSpec, RoomCheck
from blockjobs.model.room import Estimate, estimate_room

_NOTHING: Final[Mapping[JobId, int]] = {}


@dataclass(frozen=True, slots=True)
class Outlook:
    """The forecast of one job: bytes to read, free space at the target less other jobs' claims, and seconds (or None).

    ``needs``: the room needed by the target; None for a target other than a file or without an estimate.  ``wrong``:
    obstacles; ``warnings``: findings without effect on the start.
    """

    job: JobId
    host: Host
    size: int
    bytes: int
    free: int | None
    exists: bool
    seconds: float | None
    needs: Estimate | None = None
    wrong: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.job, "host": self.host, "size": self.size, "bytes": self.bytes, "free": self.free,
            "needs": None if self.needs is None else self.needs.bytes,
            "needs-by": None if self.needs is None else self.needs.origin,
            "target-exists": self.exists, "seconds": None if self.seconds is None else round(self.seconds, 1),
            "problems": list(self.wrong), "warnings": list(self.warnings),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Owing:
    """A running job: the file system of its target, and an upper bound of the bytes still to write."""

    spec: JobSpec
    seen: Mapping[str, Any]
    left: int


def target_file_system(spec: JobSpec, seen: Mapping[str, Any]) -> tuple[object, ...] | None:
    """The file system of a target: targets with equal tuples share room.  None for a target without need of room.

    A store counts as shared by all hosts reporting the same size; hosts with different sizes have separate disks.
    """
    if not seen.get("total"):
        return None
    return ("store", spec.store, seen["total"]) if spec.store else (spec.host, seen["device"])


def job_outlooks(
    jobs: Sequence[JobSpec],
    seen: Mapping[JobId, Mapping[str, Any]],
    owing: Iterable[Owing],
    rates: CopyRates,
    busy: Mapping[JobId, Sequence[str]],
    *,
    last: Mapping[JobId, int] = _NOTHING,
) -> list[Outlook]:
    """The forecast of every job.

    ``seen``: a host's forecast, or its ``text`` if the host refused.  ``last``: bytes taken up by the last committed
    backup of a job, if any.
    """
    owed: dict[object, int] = {}
    for other in owing:
        where = target_file_system(other.spec, other.seen)
        owed[where] = owed.get(where, 0) + other.left
    needed: dict[object, int] = {}
    needs: dict[JobId, Estimate | None] = {}
    for job in jobs:
        where, about = target_file_system(job, seen[job.id]), seen[job.id]
        if where is not None:
            needs[job.id] = estimate_room(job, last=last.get(job.id, 0), allocated=about.get("allocated"))
            needed[where] = needed.get(where, 0) + (each.bytes if (each := needs[job.id]) else 0)
    found = []
    for job in jobs:
        about, where = seen[job.id], target_file_system(job, seen[job.id])
        free = None if where is None else about["free"] - owed.get(where, 0)
        wrong = [*busy.get(job.id, ())]
        wrong += [about["text"]] if "text" in about else []
        if about.get("exists") and not job.overwrite:
            wrong.append(f"target {job.target.text} exists")
        warnings = [*about.get("warnings", ())]
        if free is not None and needed[where] > free:
            text = f"not enough space at {job.target.text}: the run needs {needed[where]} bytes there of {free}"
            (warnings if job.room is RoomCheck.WARN else wrong).append(text)
        if free is not None and needs[job.id] is None:
            warnings.append(f"nobody can tell how much room {job.target.text} needs")
        found.append(
            Outlook(
                job.id,
                job.host,
                about.get("size", 0),
                about.get("bytes", 0),
                free,
                bool(about.get("exists")),
                rates.seconds(job, about.get("bytes", 0)),
                needs.get(job.id),
                tuple(wrong),
                tuple(warnings),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class CopyRates:
    """Bytes a second of earlier runs: by job name in ``of``, and over every job in ``all``."""

    of: Mapping[str, float]
    all: float | None = None

    def seconds(self, job: JobSpec, amount: int) -> float | None:
        """Seconds needed by a job; None without a known rate."""
        rate = self.of.get(job.id.removeprefix(f"{job.run}."), self.all)
        slowest = min(rate, job.speed) if rate and job.speed else rate
        return amount / slowest if slowest else None


def run_duration(jobs: Iterable[Outlook], slots: Mapping[Host, int]) -> float | None:
    """Seconds needed by the run, until its last host is done; None if the duration of a job is not known."""
    taken: dict[Host, list[float]] = {}
    for job in jobs:
        if job.seconds is None:
            return None
        taken.setdefault(job.host, []).append(job.seconds)
    ends = (max(*each, sum(each) / (slots.get(host) or 1)) for host, each in taken.items())
    return max(ends, default=None)
