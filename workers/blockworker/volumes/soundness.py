"""Whether images of a format are sound: their headers, their tables, and QEMU's own check of them, in the cage.

Clusters that nobody uses (leaks) are no damage.
"""

from __future__ import annotations

import array
import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import SECTOR, DebugVolume, FormatVolume, Volume, label
from blockworker.cage import Cage
from blockworker.cage.limits import PATIENCE
from blockworker.locks import is_written
from blockworker.volumes.headers import Qcow2, Vmdk, seems_formatted
from blockworker.volumes.layers import Open
from blockworker.volumes.qemuimg import ImageTool

_MOST_ENTRIES: Final = 128 << 20  # of a vmdk's directory; QEMU takes no larger one
_TABLE: Final = 512  # entries of a vmdk's table at most, as QEMU takes them
_PIECE: Final = 1 << 20  # bytes of a directory that are read at once


@dataclass(frozen=True, slots=True)
class Soundness:
    """What was found of a volume and the layers below it.

    ``damage``: a line for each fault; ``unknown``: why an image could not be checked now, a line each.
    """

    damage: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def examine_volume(
    volume: Volume, open_: Open, cage: Cage, *, seconds: float = PATIENCE.look_check, cut: bool = False
) -> Soundness:
    """Check each image of a format that a volume is read from, for so many seconds in all.

    ``cut``: the topmost file is what was cut while its writer went on.  Raises JobFailed: a file cannot be opened.
    """
    damage: list[str] = []
    unknown: list[str] = []
    deadline = time.monotonic() + seconds
    for number, image in enumerate(_images(volume)):
        bottom = volumespec.bottom(image)
        if not isinstance(bottom, volumespec.FileVolume | volumespec.DeviceVolume):
            continue
        fd = open_(bottom)
        try:
            if is_written(fd):
                unknown.append(f"{label(image)} was not checked: QEMU writes to it")
                continue
            left = max(0.0, deadline - time.monotonic())
            damage += damage_of(fd, image, cage, seconds=left, crashed=cut and not number)
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
    fd: int, image: FormatVolume, cage: Cage | None, *, seconds: float = PATIENCE.check, crashed: bool = False
) -> list[str]:
    """What is wrong with one open image, without the layers below it; [] for nothing.

    ``crashed``: it is what a writer left in the middle of its work, so that a dirty qcow2 is in order, and what QEMU's
    check says of its counts means nothing.

    Raises:
        JobFailed: ETIMEDOUT, it could not be checked in so many seconds; another one: it could not be read.
    """
    name, length = label(image), _length(fd)
    if image.driver == "vmdk":
        return [f"{name} {wrong}" for wrong in _vmdk_faults(fd, length, time.monotonic() + seconds, name)]
    header = Qcow2.read(fd)
    dirty = crashed and header.dirty
    if faults := header.faults(length, dirty_is_fine=dirty):
        return [f"{name} {wrong}" for wrong in faults]
    return [] if dirty else ImageTool(fd, image.driver, name, cage=cage).faults(seconds)


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


def _vmdk_faults(fd: int, length: int, deadline: float, name: str) -> list[str]:
    """What QEMU's check of a vmdk finds, which takes it seconds for each TiB of an empty one."""
    header = Vmdk.read(fd)
    if header.unclean:
        return ["was not closed by its last writer (dirty)"]
    if not (0 < header.table_entries <= _TABLE and header.grain):
        return [f"has tables of {header.table_entries} entries of {header.grain} bytes: at most {_TABLE} were expected"]
    entries = -(-header.capacity // (header.grain * header.table_entries))
    end = header.directory + 4 * entries
    if entries > _MOST_ENTRIES or not header.directory or end > length:
        return [f"is cut: its directory ends at {end}, the file at {length}"]
    farthest = 0
    for start, size in _runs(fd, header.directory, end, 4 * header.table_entries):
        if time.monotonic() > deadline:
            raise JobFailed(errno.ETIMEDOUT, f"{name} was not checked: its tables took too long to read")
        if start + size > length:
            return [f"is cut: its tables end at {start + size}, the file at {length}"]
        for here in range(start, start + size, _PIECE):
            farthest = max(farthest, _largest(os.pread(fd, min(_PIECE, start + size - here), here)))
    ends = farthest * SECTOR + (_packed(fd, farthest * SECTOR) if header.kind == "streamOptimized" else header.grain)
    return [f"is cut: its data ends at {ends}, the file at {length}"] if farthest and ends > length else []


def _packed(fd: int, start: int) -> int:
    """How many bytes a compressed piece of a vmdk takes, with the 12 that tell its place and size."""
    marker = os.pread(fd, 12, start).ljust(12, b"\0")
    return 12 + int.from_bytes(marker[8:], "little")


def _runs(fd: int, directory: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the tables of a vmdk lie, and how many bytes: neighbours, as all are in an image of QEMU's, as one."""
    first = last = 0
    for start in range(directory, end, _PIECE):
        for sector in _numbers(os.pread(fd, min(_PIECE, end - start), start)):
            if not sector or sector * SECTOR == last:
                last += size if sector else 0
                continue
            if last:
                yield first, last - first
            first, last = sector * SECTOR, sector * SECTOR + size
    if last:
        yield first, last - first


def _largest(table: bytes) -> int:
    """The largest number of 32 bits in a table; 0 for one without any, which is found fast."""
    return max(_numbers(table), default=0) if table.count(0) < len(table) else 0


def _numbers(table: bytes) -> array.array[int]:
    """Numbers of 32 bits, little-endian."""
    numbers = array.array("I", table[: len(table) // 4 * 4])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def notes_on(volume: Volume, open_: Open) -> tuple[str, ...]:
    """What people should know of a volume that is copied as raw bytes: that it seems to be an image of a format."""
    bottom = volumespec.bottom(volume)
    raw = volumespec.formatted(volume) is None
    if not raw or not isinstance(bottom, volumespec.FileVolume | volumespec.DeviceVolume):
        return ()
    fd = open_(bottom)
    try:
        seems = seems_formatted(fd)
    except OSError:
        return ()  # who reads it for good says what is wrong with it
    finally:
        os.close(fd)
    if not seems:
        return ()
    return (f"source {bottom.filename} is copied as raw bytes, and begins as {seems}",)
