"""The conditions for a job if it were started now: the bytes to be read, and the room at its target.

The forecast makes and changes nothing.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from blockjobs.model import cuts, volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.restores import TYPE as RESTORE
from blockjobs.model.volumespec import FileVolume
from blockworker.drivers import find_driver
from blockworker.drivers.restore import Restore
from blockworker.drivers.staged import Staged
from blockworker.host.roots import Roots
from blockworker.records.files import stat_of
from blockworker.volumes import Source, open_source
from blockworker.volumes.in_use import is_torn
from blockworker.volumes.layers import opener_beneath_roots
from blockworker.volumes.soundness import notes_on

TORN: Final = (
    "source {path}: QEMU has it open for writing, and no 'quiesce' is given: "
    "its cut is what a power cut would have left, and cuts of a group are not of one instant"
)

PART: Final = "source {path}: only {seen} of {size} bytes could be looked at in time: all others are counted as data"
LOOK: Final = 2.0  # seconds for the map of a source: the asker waits, and QEMU needs a second for a GiB of a vmdk


def forecast_job(roots: Roots, spec: JobSpec) -> dict[str, Any]:
    """Size and data of the source, and room at the target. Raises JobFailed: one of them cannot be examined."""
    cut = spec.type == "backup" and spec.snapshot != cuts.NONE
    source = _open_job_source(roots, spec, cut=cut)
    try:
        data, seen = _data_of(source)
        warnings = (
            [TORN.format(path=volumespec.volume_label(spec.source.volume))] if cut and is_torn(spec, roots) else []
        )
        if seen < source.size:
            warnings.append(PART.format(path=volumespec.volume_label(spec.source.volume), seen=seen, size=source.size))
        if spec.type != RESTORE:  # the manifest of a published image tells its format
            warnings += notes_on(spec.source.volume, opener_beneath_roots(roots))
        return {
            "size": source.size,
            "bytes": data,
            "allocated": _allocated_bytes(roots, spec, source),
            "warnings": warnings,
            **target_room(roots, spec),
        }
    finally:
        source.close()


def _data_of(source: Source) -> tuple[int, int]:
    """Bytes of data of a source, and number of examined bytes; bytes not examined count as data."""
    data, seen, until = 0, 0, time.monotonic() + LOOK
    for extent in source.extents(0, source.size):
        data, seen = data + (extent.length if extent.data else 0), seen + extent.length
        if time.monotonic() >= until:
            break
    return data + source.size - seen, seen


def _open_job_source(roots: Roots, spec: JobSpec, *, cut: bool) -> Source:
    """The source as OPEN will see it."""
    if spec.type == RESTORE:
        return Restore().source(roots, spec)
    return open_source(spec.source.volume, roots, top_only=spec.sync == "top", shared=cut)


def _allocated_bytes(roots: Roots, spec: JobSpec, source: Source) -> int | None:
    """Allocated bytes of the source, if they tell the size of a copy; else None."""
    driver = find_driver(spec.type, roots.config.name)
    return driver.allocated(spec, source) if isinstance(driver, Staged) else None


def target_room(roots: Roots, spec: JobSpec) -> dict[str, Any]:
    """The file system of the target: its number on this host, size and free bytes; and whether the target exists.

    A target that is no file takes no room.
    """
    bottom = volumespec.bottom_volume(spec.target.volume)
    if not isinstance(bottom, FileVolume):
        return {"device": 0, "total": 0, "free": 0, "exists": False}
    roots.expect_target(bottom.filename, restore=spec.type == RESTORE)
    base = roots.open_dir(spec.target_base, what="target directory")
    try:
        about, device = os.fstatvfs(base), os.fstat(base).st_dev
    finally:
        os.close(base)
    return {
        "device": device, "total": about.f_blocks * about.f_frsize, "free": about.f_bavail * about.f_frsize,
        "exists": _target_exists(roots, bottom.filename),
    }  # fmt: skip


def _target_exists(roots: Roots, path: str) -> bool:
    try:
        directory = roots.open_dir(os.path.dirname(path))
    except JobFailed:  # made when the job is opened
        return False
    try:
        return stat_of(directory, os.path.basename(path)) is not None
    finally:
        os.close(directory)
