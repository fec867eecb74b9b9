"""Estimate of the room needed by a job's target, with the origin of the figure.  Pure.

The best estimate is the size of the last committed backup of the same job.  Without such a backup the estimate is the
data of a raw source file.  No estimate exists for devices, for data in an image of a format, and for compressed data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from blockjobs.model import restores, verifications, volumespec
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import FileVolume

_STARTED = re.compile(r"-\d{8}T\d{6}Z$")  # the end of a run's id


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes needed by a target, and ``origin``: the source of the figure, in words."""

    bytes: int
    origin: str


def backup_series(spec: JobSpec) -> str:
    """The key shared by all backups of a job; "" for a job without a backup file."""
    target = spec.target.volume
    if spec.type in (restores.TYPE, verifications.TYPE) or not isinstance(volumespec.bottom_volume(target), FileVolume):
        return ""
    image = volumespec.format_image(target)
    form = (image.driver if image else "raw") + (" compressed" if spec.compress else "")
    return f"{_STARTED.sub('', spec.run)} {spec.id.removeprefix(f'{spec.run}.')} {spec.sync} {form}"


def estimate_room(spec: JobSpec, *, last: int, allocated: int | None) -> Estimate | None:
    """The estimate for a job; None without one.

    ``last``: bytes taken up by the last committed backup of the series; 0 without one.  ``allocated``: bytes taken up
    by the raw source file; None for other sources.
    """
    if last:
        return Estimate(last, "last backup")
    if allocated is None or spec.compress:
        return None
    return Estimate(allocated, "data of the source")
