"""How much room a job's target is going to need: an estimate, and where it comes from.  Pure.

The best one is what the last committed backup of the same job takes up.  Without one it is the data of a raw file.
Nobody can tell for a device, for what lies in an image of a format, and for compressed data.
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
    """Bytes that a target is going to take up, and ``origin``, in words: what they are taken from."""

    bytes: int
    origin: str


def series(spec: JobSpec) -> str:
    """What all backups of one job have in common, in a word; "": it makes none, or none in a file."""
    target = spec.target.volume
    if spec.type in (restores.TYPE, verifications.TYPE) or not isinstance(volumespec.bottom(target), FileVolume):
        return ""
    image = volumespec.formatted(target)
    form = (image.driver if image else "raw") + (" compressed" if spec.compress else "")
    return f"{_STARTED.sub('', spec.run)} {spec.id.removeprefix(f'{spec.run}.')} {spec.sync} {form}"


def estimate(spec: JobSpec, *, last: int, allocated: int | None) -> Estimate | None:
    """The estimate for a job; None where there is none.

    ``last``: what the last committed backup of its series takes up, in bytes; 0: there is none.
    ``allocated``: the same of the raw file that is its source; None: it is no raw file.
    """
    if last:
        return Estimate(last, "last backup")
    if allocated is None or spec.compress:
        return None
    return Estimate(allocated, "data of the source")
