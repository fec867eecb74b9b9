"""Volumes: what is copied from, and the stand-ins that are copied to.  A job's volume is opened here by its driver."""

from __future__ import annotations

import errno
from typing import assert_never

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import (
    DebugVolume,
    DeviceVolume,
    FileVolume,
    NullVolume,
    OtherVolume,
    Volume,
    bottom,
    label,
    other,
)  # fmt: skip
from blockworker.roots import Roots
from blockworker.volumes.base import REPLACED, Extent, Identity, Source, Target, VolumeDriver
from blockworker.volumes.blkdebug import DebugSource, DebugTarget
from blockworker.volumes.device import DeviceSource
from blockworker.volumes.file import FileSource
from blockworker.volumes.null import NullSource, NullTarget

__all__ = [
    "REPLACED", "Extent", "Identity", "NullTarget", "Source", "Target", "VolumeDriver",
    "filter_target", "open_source", "open_target",
]  # fmt: skip


def open_source(volume: Volume, roots: Roots) -> Source:
    """Open a volume for reading.  The format is never probed: what is in the image is only bytes."""
    match volume:
        case FileVolume(filename):
            return FileSource(roots.open_source(filename), filename)
        case DeviceVolume(filename):
            return DeviceSource(roots.open_device(filename), filename)
        case NullVolume():
            return NullSource(volume)
        case DebugVolume(image, rules):
            return DebugSource(open_source(image, roots), rules, label(image))
        case OtherVolume(driver, _, keys):
            return _other(driver, roots).open_source(keys, roots)
        case _:
            assert_never(volume)


def open_target(volume: Volume, roots: Roots, size: int) -> Target:
    """Open what is written in place, of nobody's staging: ``null-co``, and volumes of others."""
    lowest = bottom(volume)
    if isinstance(lowest, OtherVolume):
        return filter_target(volume, _other(lowest.driver, roots).open_target(lowest.keys, roots, size))
    return filter_target(volume, NullTarget(size))


def _other(driver: str, roots: Roots) -> VolumeDriver:
    found: VolumeDriver | None = other(driver)
    if found is None:
        raise JobFailed(errno.ENOTSUP, f"no volume driver '{driver}' on host {roots.config.name}")
    return found


def filter_target(volume: Volume, target: Target) -> Target:
    """Put the filters that ``volume`` names (blkdebug) on top of the target that was opened for its bottom."""
    if isinstance(volume, DebugVolume):
        return DebugTarget(filter_target(volume.image, target), volume.inject_error, label(volume.image))
    return target
