"""Volumes: the sources of copies, and stand-ins for targets. Drivers open the volumes of their jobs here."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import assert_never

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import (
    DebugVolume,
    DeviceVolume,
    FileVolume,
    FormatVolume,
    NullVolume,
    OtherVolume,
    Volume,
    bottom_volume,
    external_driver,
    volume_label,
)
from blockworker.host.roots import Roots
from blockworker.records.devices import open_source as open_device
from blockworker.system.cage.limits import PATIENCE
from blockworker.volumes.base import REPLACED, Extent, Identity, Source, Target, VolumeDriver
from blockworker.volumes.blkdebug import DebugSource, DebugTarget
from blockworker.volumes.device import DeviceSource
from blockworker.volumes.file import FileSource
from blockworker.volumes.formats import open_format
from blockworker.volumes.layers import opener_beneath_roots
from blockworker.volumes.null import NullSource, NullTarget

__all__ = [
    "REPLACED", "Extent", "Identity", "NullTarget", "Source", "Target", "VolumeDriver",
    "filter_target", "open_source", "open_target",
]  # fmt: skip


def open_source(
    volume: Volume, roots: Roots, *, top_only: bool = False, shared: bool = False, answer: float = PATIENCE.answer
) -> Source:
    """Open a volume for reading. The format is never probed: the content of an image is only bytes.

    ``top_only``: read only the top one of an image's layers. ``shared``: read an image of a format even if QEMU writes
    to it. ``answer``: seconds that QEMU has for one answer about an image of a format.
    """
    match volume:
        case FileVolume(filename):
            return FileSource(roots.open_source(filename), filename)
        case DeviceVolume(filename):
            return DeviceSource(open_device(roots, filename), filename)
        case NullVolume():
            return NullSource(volume)
        case DebugVolume(image, rules):
            below = open_source(image, roots, top_only=top_only, shared=shared, answer=answer)
            return DebugSource(below, rules, volume_label(image))
        case FormatVolume():
            return open_format(
                volume, opener_beneath_roots(roots), top_only=top_only, shared=shared, cage=roots.cage, answer=answer
            )
        case OtherVolume(driver, _, keys):
            return _other_driver(driver, roots).open_source(keys, roots)
        case _:
            assert_never(volume)


def open_target(volume: Volume, roots: Roots, size: int) -> Target:
    """Open a target that is written in place, without staging: ``null-co``, and volumes of other packages."""
    lowest = bottom_volume(volume)
    if isinstance(lowest, OtherVolume):
        return filter_target(volume, _other_driver(lowest.driver, roots).open_target(lowest.keys, roots, size))
    return filter_target(volume, NullTarget(size))


def _other_driver(driver: str, roots: Roots) -> VolumeDriver:
    found: VolumeDriver | None = external_driver(driver)
    if found is None:
        raise JobFailed(errno.ENOTSUP, f"no volume driver '{driver}' on host {roots.config.name}")
    return found


def filter_target(volume: Volume, target: Target, form: Callable[[FormatVolume], Target] | None = None) -> Target:
    """Put the layers named in ``volume`` (blkdebug, a format) on top of the target opened for its bottom."""
    match volume:
        case DebugVolume(image, rules):
            return DebugTarget(filter_target(image, target, form), rules, volume_label(image))
        case FormatVolume() if form is not None:
            return form(volume)
        case _:
            return target
