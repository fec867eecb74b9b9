"""A run of jobs of type ``verify``: each reads one published image, compares it with its digests, and writes nothing.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from blockjobs.model import cuts, ids, volumespec
from blockjobs.model.ids import Host, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import ALONE, Policy, RunFields, Skipped
from blockjobs.model.runs import RunPlan, word
from blockjobs.model.volumespec import FileVolume, HostedVolume, NullVolume

TYPE: Final = "verify"
FROM_MEDIUM: Final = "from-medium"  # in a job's result: whether all that was read came from the medium, not a cache
RUN, JOB = "run", "job"  # options: who has to have made the image, by its manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedImage:
    """A published image.  ``run`` and ``job``: who made it; "" where only its place is known."""

    host: str
    path: str
    run: str = ""
    job: str = ""
    store: str = ""  # that it lies in: reading takes a place there, and its share of the bytes

    @property
    def volume(self) -> HostedVolume:
        return HostedVolume(Host(self.host), FileVolume(self.path))


def plan(
    images: Sequence[PublishedImage],
    now: datetime,
    *,
    speed: int = 0,
    without: Sequence[tuple[PublishedImage, str]] = (),
) -> RunPlan:
    """A run with a transaction for each image, so that one that is bad stops no other.

    ``without``: images that it has to go without, and why; it cannot succeed then.
    """
    run = ids.run_id(TYPE, now)
    names = _names([*images, *(image for image, _ in without)])
    specs = [_job(run, name, image, speed) for name, image in zip(names, images, strict=False)]
    skipped = tuple(
        Skipped(transaction=ALONE, host=image.host, jobs=(name,), why=why)
        for name, (image, why) in zip(names[len(images) :], without, strict=True)
    )
    policies = {ALONE: Policy(grouped=False, succeed_if=100.0)} if skipped else {}
    return RunPlan(
        run, TYPE, grouped=False, transactions=tuple((spec,) for spec in specs),
        fields=RunFields(policies=policies, skipped=skipped),
    )  # fmt: skip


def _job(run: RunId, name: str, image: PublishedImage, speed: int) -> JobSpec:
    options: dict[str, Any] = {RUN: image.run, JOB: image.job} if image.job else {}
    job = ids.job_id(f"{run}.{name}")
    return JobSpec(
        id=job, transaction=TxnId(job), run=run, type=TYPE, source=image.volume,
        target=HostedVolume(Host(image.host), NullVolume()), speed=speed, digests=False, snapshot=cuts.NONE,
        store=image.store, options=options,
    )  # fmt: skip


def _names(images: Sequence[PublishedImage]) -> list[str]:
    """What each is called within the run: as its job was in its own; in full where they are of several runs."""
    one = len({image.run for image in images}) == 1
    names: dict[str, None] = {}
    for image in images:
        job = image.job.removeprefix(f"{image.run}.") if one else image.job
        name = (job or f"{image.host}-{word(image.path)}")[: ids.LONGEST // 2]
        names[ids.free(name, names)] = None
    return list(names)


def store_of(path: str, stores: Iterable[tuple[str, str]]) -> str:
    """The store (of names and their paths) that a path lies in; "" for none."""
    inside = [(len(place), name) for name, place in stores if f"{path}/".startswith(f"{place}/")]
    return max(inside, default=(0, ""))[1]


def image_of(spec: JobSpec) -> PublishedImage | None:
    """What a job has published, once it has committed; None where that is no file."""
    bottom = volumespec.bottom(spec.target.volume)
    if not isinstance(bottom, FileVolume):
        return None
    return PublishedImage(host=spec.host, path=bottom.filename, run=spec.run, job=spec.id)


def in_words(ranges: Sequence[Sequence[int]], more: int = 0, *, most: int) -> str:
    """``5242880 to 6291456, 7340032 to 8388608 and 3 more``: the first of some ranges; ``more`` are not among them."""
    named = ", ".join(f"{start} to {end}" for start, end in ranges[:most])
    rest = max(0, len(ranges) - most) + more
    return f"{named} and {rest} more" if rest else named
