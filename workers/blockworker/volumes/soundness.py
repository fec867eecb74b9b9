"""Whether images of a format are sound: their headers, their tables, and QEMU's own check of them, in the cage.

Clusters that nobody uses (leaks) are no damage.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import DebugVolume, DeviceVolume, FileVolume, FormatVolume, Volume, label
from blockworker.system.cage import Cage
from blockworker.system.cage.limits import PATIENCE
from blockworker.system.cage.tool import Idle
from blockworker.system.image_locks import is_written
from blockworker.volumes.headers import Qcow2, reading_tables, seems_formatted
from blockworker.volumes.layers import Open
from blockworker.volumes.qcow2 import cut_data
from blockworker.volumes.qemuimg import ImageTool
from blockworker.volumes.vmdk import table_faults


@dataclass(frozen=True, slots=True)
class Soundness:
    """What was found of a volume and the layers below it.

    ``damage``: a line for each fault; ``unknown``: why an image could not be checked now, a line each.
    """

    damage: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def examine_volume(
    volume: Volume,
    open_: Open,
    cage: Cage,
    *,
    seconds: float = PATIENCE.look_check,
    top_only: bool = False,
    cut: bool = False,
    idle: Idle = lambda: None,
) -> Soundness:
    """Check each image of a format that a volume is read from, for so many seconds in all.

    ``top_only``: without the layers below; ``cut``: the topmost file is what was cut while its writer went on;
    ``idle``: of ``run_tool``.

    Raises JobFailed: a file cannot be opened.
    """
    damage: list[str] = []
    unknown: list[str] = []
    deadline = time.monotonic() + seconds
    for number, image in enumerate(_images(volume)):
        bottom = volumespec.bottom(image)
        if not isinstance(bottom, volumespec.FileVolume | volumespec.DeviceVolume) or (top_only and number):
            continue
        fd = open_(bottom)
        try:
            if is_written(fd):
                unknown.append(f"{label(image)} was not checked: QEMU writes to it")
                continue
            left = max(0.0, deadline - time.monotonic())
            found = damage_of(
                fd, image, cage, seconds=left, crashed=cut and not number, locks=False, idle=idle
            )  # fmt: skip
            if found and is_written(fd):
                unknown.append(f"{label(image)} was not checked: QEMU began to write to it")
            else:
                damage += found
        except JobFailed as failed:
            if failed.errno != errno.ETIMEDOUT:
                raise
            unknown.append(failed.text)
        finally:
            os.close(fd)
    return Soundness(tuple(damage), tuple(unknown))


def _images(volume: Volume | None) -> Iterator[FormatVolume]:
    """The images of a format in a volume, the topmost first."""
    while volume is not None:
        if isinstance(volume, DebugVolume):
            volume = volume.image
        elif isinstance(volume, FormatVolume):
            yield volume
            volume = volume.backing
        else:
            return


def damage_of(
    fd: int,
    image: FormatVolume,
    cage: Cage | None,
    *,
    seconds: float = PATIENCE.check,
    crashed: bool = False,
    locks: bool = True,
    idle: Idle = lambda: None,
) -> list[str]:
    """What is wrong with one open image, without the layers below it; [] for nothing.

    ``crashed``: it is what a writer left in the middle of its work, so that a dirty qcow2 is in order, and what QEMU's
    check says of its counts means nothing.  ``locks``: of ``ImageTool``; ``idle``: of ``run_tool``.

    Raises:
        JobFailed: ETIMEDOUT, it could not be checked in so many seconds; another one: it could not be read.
    """
    name, length = label(image), _length(fd)
    if image.driver == "vmdk":
        return table_faults(fd, name, seconds)
    header = Qcow2.read(fd)
    dirty = crashed and header.dirty
    if faults := header.faults(length, dirty_is_fine=dirty):
        return [f"{name} {wrong}" for wrong in faults]
    if dirty:
        return []
    faults = ImageTool(fd, image.driver, name, cage=cage, locks=locks).faults(seconds, idle=idle)
    return faults or _cut_data(fd, header, name, length, seconds)


def _cut_data(fd: int, header: Qcow2, name: str, length: int, seconds: float) -> list[str]:
    try:
        with reading_tables(name, seconds):
            found = cut_data(fd, header, length, seconds)
    except OSError as error:
        found = f"has tables that cannot be read: {error.strerror}"
    return [f"{name} {found}"] if found else []


def finish_image(fd: int, image: FormatVolume, size: int, cage: Cage | None) -> None:
    """Cut an image that was written to its size, give back what an attempt that died left allocated, and prove that the
    image is sound.

    Raises:
        JobFailed: it is damaged, or that could not be proven in time.
    """
    tool = ImageTool(fd, image.driver, label(image), cage=cage)
    tool.shrink(size)
    os.fsync(fd)
    if image.driver == "qcow2":
        header = [f"{label(image)} {wrong}" for wrong in Qcow2.read(fd).faults(_length(fd))]
        faults = header or tool.faults(PATIENCE.check, repair_leaks=True)
    else:
        faults = damage_of(fd, image, cage)
    if faults:
        raise JobFailed(errno.EIO, "; ".join(faults))
    os.fsync(fd)


def _length(fd: int) -> int:
    st = os.fstat(fd)
    return st.st_size if stat.S_ISREG(st.st_mode) else os.lseek(fd, 0, os.SEEK_END)


def notes_on(volume: Volume, open_: Open) -> tuple[str, ...]:
    """What people should know of a volume that is copied as raw bytes, or lies on a layer that is read as such: that
    these seem to be an image of a format."""
    found = []
    for store, called in _raws(volume):
        fd = open_(store)
        try:
            if seems := seems_formatted(fd):
                found.append(f"{called} as raw bytes, and begins as {seems}")
        except OSError:
            continue  # who reads it for good says what is wrong with it
        finally:
            os.close(fd)
    return tuple(found)


def _raws(
    volume: Volume | None, what: str = "source {} is copied"
) -> Iterator[tuple[FileVolume | DeviceVolume, str]]:  # fmt: skip
    """The files and devices of a volume, and of its layers, that are read as raw bytes; what a message calls them."""
    match volume:
        case FileVolume() | DeviceVolume():
            yield volume, what.format(volume.filename)
        case DebugVolume(image=below):
            yield from _raws(below, what)
        case FormatVolume(backing=below):
            yield from _raws(below, "layer {} is read")
