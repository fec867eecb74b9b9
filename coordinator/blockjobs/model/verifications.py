"""A run of jobs of type ``verify``: each job reads one published image and compares the image with its digests.

A verify job writes nothing.  Pure.
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
from blockjobs.model.runs import RunPlan, path_as_id_word
from blockjobs.model.volumespec import FileVolume, HostedVolume, NullVolume

TYPE: Final = "verify"
FROM_MEDIUM: Final = "from-medium"  # key of a job's result: whether every read came from the medium, not from a cache
RUN, JOB = "run", "job"  # options: the run and the job expected in the manifest of the image


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedImage:
    """A published image.  ``run`` and ``job`` made the image; both are "" where only its path is known."""

    host: str
    path: str
    run: str = ""
    job: str = ""
    store: str = ""  # the store of the image: reading takes a place there, and a share of its bandwidth

    @property
    def volume(self) -> HostedVolume:
        return HostedVolume(Host(self.host), FileVolume(self.path))


def plan_verification(
    images: Sequence[PublishedImage],
    now: datetime,
    *,
    speed: int = 0,
    without: Sequence[tuple[PublishedImage, str]] = (),
) -> RunPlan:
    """Plan a run with one transaction per image, so that a bad image stops no other image.

    ``without``: images left out, with reasons; a run with an image left out cannot succeed.
    """
    run = ids.run_id(TYPE, now)
    names = _image_names([*images, *(image for image, _ in without)])
    specs = [_verify_job(run, name, image, speed) for name, image in zip(names, images, strict=False)]
    skipped = tuple(
        Skipped(transaction=ALONE, host=image.host, jobs=(name,), why=why)
        for name, (image, why) in zip(names[len(images) :], without, strict=True)
    )
    policies = {ALONE: Policy(grouped=False, succeed_if=100.0)} if skipped else {}
    return RunPlan(
        run,
        TYPE,
        grouped=False,
        transactions=tuple((spec,) for spec in specs),
        fields=RunFields(policies=policies, skipped=skipped),
    )


def _verify_job(run: RunId, name: str, image: PublishedImage, speed: int) -> JobSpec:
    options: dict[str, Any] = {RUN: image.run, JOB: image.job} if image.job else {}
    job = ids.job_id(f"{run}.{name}")
    return JobSpec(
        id=job,
        transaction=TxnId(job),
        run=run,
        type=TYPE,
        source=image.volume,
        target=HostedVolume(Host(image.host), NullVolume()),
        speed=speed,
        digests=False,
        snapshot=cuts.NONE,
        store=image.store,
        options=options,
    )


def _image_names(images: Sequence[PublishedImage]) -> list[str]:
    """The names of the images within the run.

    A name is the short job name if all images are of one run, else the full job id.
    """
    one = len({image.run for image in images}) == 1
    names: dict[str, None] = {}
    for image in images:
        job = image.job.removeprefix(f"{image.run}.") if one else image.job
        name = (job or f"{image.host}-{path_as_id_word(image.path)}")[: ids.LONGEST // 2]
        names[ids.free_name(name, names)] = None
    return list(names)


def store_of(path: str, stores: Iterable[tuple[str, str]]) -> str:
    """The store of ``path``, from pairs of name and path; "" for none."""
    inside = [(len(place), name) for name, place in stores if f"{path}/".startswith(f"{place}/")]
    return max(inside, default=(0, ""))[1]


def image_of(spec: JobSpec) -> PublishedImage | None:
    """The image published by a job after its commit; None if the target is no file."""
    bottom = volumespec.bottom_volume(spec.target.volume)
    if not isinstance(bottom, FileVolume):
        return None
    return PublishedImage(host=spec.host, path=bottom.filename, run=spec.run, job=spec.id)


def in_words(ranges: Sequence[Sequence[int]], more: int = 0, *, most: int) -> str:
    """Ranges as text, such as ``5242880 to 6291456, 7340032 to 8388608 and 3 more``.

    At most ``most`` ranges are listed; ``more`` counts ranges not passed in.
    """
    named = ", ".join(f"{start} to {end}" for start, end in ranges[:most])
    rest = max(0, len(ranges) - most) + more
    return f"{named} and {rest} more" if rest else named
