"""What a run would do, from what hosts say of its jobs: enough room, how long, what stands in its way.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockjobs.model.ids import Host, JobId
from blockjobs.model.jobs import JobSpec


@dataclass(frozen=True, slots=True)
class Outlook:
    """One job: bytes that it would read, free space at its target less what others still owe there, seconds (or None).

    ``wrong``: what stands in its way; ``warnings``: what does not, and should be known.
    """

    job: JobId
    host: Host
    size: int
    bytes: int
    free: int | None
    exists: bool
    seconds: float | None
    wrong: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.job, "host": self.host, "size": self.size, "bytes": self.bytes, "free": self.free,
            "target-exists": self.exists, "seconds": None if self.seconds is None else round(self.seconds, 1),
            "problems": list(self.wrong), "warnings": list(self.warnings),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Owing:
    """A job that runs: where its target lies, and the bytes that it has not written yet, at most."""

    spec: JobSpec
    seen: Mapping[str, Any]
    left: int


def place(spec: JobSpec, seen: Mapping[str, Any]) -> tuple[object, ...] | None:
    """The file system of a target: the same tuple, the same room.  None: it takes nothing up.

    A store is one for all hosts that see it with one size; where the sizes differ, it is a disk of each of them.
    """
    if not seen.get("total"):
        return None
    return ("store", spec.store, seen["total"]) if spec.store else (spec.host, seen["device"])


def outlook(
    jobs: Sequence[JobSpec], seen: Mapping[JobId, Mapping[str, Any]], owing: Iterable[Owing], rates: Rates,
    busy: Mapping[JobId, Sequence[str]],
) -> list[Outlook]:  # fmt: skip
    """Each job as it would fare.  ``seen``: a host's forecast, or its ``text`` where it refused to look."""
    owed: dict[object, int] = {}
    for each in owing:
        where = place(each.spec, each.seen)
        owed[where] = owed.get(where, 0) + each.left
    needed: dict[object, int] = {}
    for job in jobs:
        where = place(job, seen[job.id])
        needed[where] = needed.get(where, 0) + seen[job.id].get("bytes", 0)
    found = []
    for job in jobs:
        about, where = seen[job.id], place(job, seen[job.id])
        free = None if where is None else about["free"] - owed.get(where, 0)
        wrong = [*busy.get(job.id, ())]
        wrong += [about["text"]] if "text" in about else []
        if about.get("exists") and not job.overwrite:
            wrong.append(f"target {job.target.text} exists")
        if free is not None and needed[where] > free:
            wrong.append(f"not enough space at {job.target.text}: the run needs {needed[where]} bytes there of {free}")
        found.append(Outlook(
            job.id, job.host, about.get("size", 0), about.get("bytes", 0), free, bool(about.get("exists")),
            rates.seconds(job, about.get("bytes", 0)), tuple(wrong), tuple(about.get("warnings", ())),
        ))  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second of earlier runs: by the name of a job, and of all of them."""

    of: Mapping[str, float]
    all: float | None = None

    def seconds(self, job: JobSpec, amount: int) -> float | None:
        """How long a job takes; None where nothing is known."""
        rate = self.of.get(job.id.removeprefix(f"{job.run}."), self.all)
        slowest = min(rate, job.speed) if rate and job.speed else rate
        return amount / slowest if slowest else None


def whole(jobs: Iterable[Outlook], slots: Mapping[Host, int]) -> float | None:
    """How long the run takes: as long as the host that is last; None where that is not known."""
    taken: dict[Host, list[float]] = {}
    for job in jobs:
        if job.seconds is None:
            return None
        taken.setdefault(job.host, []).append(job.seconds)
    ends = (max(*each, sum(each) / (slots.get(host) or 1)) for host, each in taken.items())
    return max(ends, default=None)
