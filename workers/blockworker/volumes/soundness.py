"""Soundness of images of a format: headers, tables, and QEMU's own check of the tables, in the cage.

Unused allocated clusters (leaks) are no damage.
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
from blockjobs.model.volumespec import DebugVolume, DeviceVolume, FileVolume, FormatVolume, Volume, volume_label
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
    """Findings about a volume and the layers below.

    ``damage``: a line per fault; ``unknown``: a line per image that could not be checked now, with the reason.
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
    """Check every image of a format in a volume, for at most ``seconds`` in all.

    ``top_only``: without the layers below; ``cut``: the topmost file is a cut made while its writer went on; ``idle``:
    as for ``run_tool``.

    Raises JobFailed: a file cannot be opened.
    """
    damage: list[str] = []
    unknown: list[str] = []
    deadline = time.monotonic() + seconds
    for number, image in enumerate(_format_images(volume)):
        bottom = volumespec.bottom_volume(image)
        if not isinstance(bottom, volumespec.FileVolume | volumespec.DeviceVolume) or (top_only and number):
            continue
        fd = open_(bottom)
        try:
            if is_written(fd):
                unknown.append(f"{volume_label(image)} was not checked: QEMU writes to it")
                continue
            left = max(0.0, deadline - time.monotonic())
            found = damage_of(
                fd, image, cage, seconds=left, crashed=cut and not number, locks=False, idle=idle
            )  # fmt: skip
            if found and is_written(fd):
                unknown.append(f"{volume_label(image)} was not checked: QEMU began to write to it")
            else:
                damage += found
        except JobFailed as failed:
            if failed.errno != errno.ETIMEDOUT:
                raise
            unknown.append(failed.text)
        finally:
            os.close(fd)
    return Soundness(tuple(damage), tuple(unknown))


def _format_images(volume: Volume | None) -> Iterator[FormatVolume]:
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
    """Faults of one open image, without the layers below; [] for none.

    ``crashed``: a writer left the image in the middle of a change: a dirty qcow2 is in order, and the counts found by
    QEMU's check mean nothing. ``locks``: as for ``ImageTool``; ``idle``: as for ``run_tool``.

    Raises:
        JobFailed: ETIMEDOUT, the check took longer than ``seconds``; another code: the image could not be read.
    """
    name, length = volume_label(image), _file_length(fd)
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
    """Cut a written image to its size, release clusters leaked by a dead attempt, and prove that the image is sound.

    Raises:
        JobFailed: the image is damaged, or the proof took too long.
    """
    tool = ImageTool(fd, image.driver, volume_label(image), cage=cage)
    tool.shrink(size)
    os.fsync(fd)
    if image.driver == "qcow2":
        header = [f"{volume_label(image)} {wrong}" for wrong in Qcow2.read(fd).faults(_file_length(fd))]
        faults = header or tool.faults(PATIENCE.check, repair_leaks=True)
    else:
        faults = damage_of(fd, image, cage)
    if faults:
        raise JobFailed(errno.EIO, "; ".join(faults))
    os.fsync(fd)


def _file_length(fd: int) -> int:
    st = os.fstat(fd)
    return st.st_size if stat.S_ISREG(st.st_mode) else os.lseek(fd, 0, os.SEEK_END)


def notes_on(volume: Volume, open_: Open) -> tuple[str, ...]:
    """Notes for people on raw files of a volume that seem to be an image of a format.

    A raw file is copied as raw bytes, or is a layer below an image.
    """
    found = []
    for store, called in _raw_volumes(volume):
        fd = open_(store)
        try:
            if seems := seems_formatted(fd):
                found.append(f"{called} as raw bytes, and begins as {seems}")
        except OSError:
            continue  # the real reader reports the error
        finally:
            os.close(fd)
    return tuple(found)


def _raw_volumes(
    volume: Volume | None, what: str = "source {} is copied"
) -> Iterator[tuple[FileVolume | DeviceVolume, str]]:
    """Files and devices read as raw bytes, of a volume and of the layers below, with names for messages."""
    match volume:
        case FileVolume() | DeviceVolume():
            yield volume, what.format(volume.filename)
        case DebugVolume(image=below):
            yield from _raw_volumes(below, what)
        case FormatVolume(backing=below):
            yield from _raw_volumes(below, "layer {} is read")
