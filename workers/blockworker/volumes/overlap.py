"""The media and byte ranges below a file or a device, to find volumes with shared bytes.

A partition lies on a disk, a mapping or an array on the member devices, a loop device on a file, a file on the device
of the file system. Facts: the kernel's ``/sys/dev/block`` (Documentation/ABI/stable/sysfs-block) and proc(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.volumespec import DeviceVolume, Volume
from blockworker.host.roots import Roots
from blockworker.system import sysfs
from blockworker.system.identity import backing_file, identify_device

_SECTOR: Final = 512  # bytes; the unit of sysfs for every device
_LAST: Final = 1 << 63  # behind the last byte of any medium
# Prefixes of unique device names, equal only for two paths of the same disk.
_UNIQUE: Final = ("wwid:", "device/wwid:", "dm/uuid:", "md/uuid:")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of one medium, with the medium's name in the registry's locks (``RDEV:0`` or ``DEV:INODE``).

    ``own``: the span is the volume itself, not a medium below. ``exact``: the volume has all bytes of the span;
    otherwise the volume has some unknown part of the span.
    """

    medium: str
    start: int = 0
    end: int = _LAST
    own: bool = False
    exact: bool = True

    def meets(self, other: Span) -> bool:
        """Whether the two certainly share bytes, as far as their bytes are known."""
        shared = self.medium == other.medium and self.start < other.end and other.start < self.end
        return shared and (self.exact or other.exact)


def have_common_bytes(one: Iterable[Span], other: Iterable[Span]) -> bool:
    """Whether two volumes share bytes: equal volumes, a volume within the other, or overlapping ranges."""
    others = list(other)
    return any(span.meets(beside) for span in one for beside in others)


def spans_of(fd: int) -> tuple[Span, ...]:
    """The spans of an open file or block device and of everything below; the first is the file or device itself."""
    st = os.fstat(fd)
    if stat.S_ISBLK(st.st_mode):
        return tuple(dict.fromkeys(_spans_of_device(st.st_rdev, frozenset())))
    return tuple(dict.fromkeys(_spans_of_file(fd, st, frozenset())))


def spans_of_volume(roots: Roots, volume: Volume, *, published: bool = False) -> tuple[Span, ...]:
    """The spans of the files and devices of a volume and of everything below, layers below the topmost image included.

    ``published``: the volume is an image published by a job, which may lie beneath a write root.

    Raises:
        JobFailed: a file or device cannot be opened.
    """
    found: list[Span] = []
    open_file = roots.open_published if published else roots.open_source
    for place in volumespec.files_and_devices(volume):
        device = isinstance(place, DeviceVolume)
        fd = roots.open_device(place.filename) if device else open_file(place.filename)
        try:
            found += spans_of(fd)
        finally:
            os.close(fd)
    return tuple(dict.fromkeys(found))


def lock_text(spans: Iterable[Span]) -> str:
    """The names locked by a reader or writer of these spans, one a line.

    A plain name locks the volume itself, ``^`` and a name a medium below the volume.
    """
    return "\n".join(dict.fromkeys(span.medium if span.own else f"^{span.medium}" for span in spans))


# --- the media ------------------------------------------------------------------------------------------


def _spans_of_device(rdev: int, above: frozenset[int]) -> Iterator[Span]:
    if rdev in above:  # no device lies on itself; a loop in /sys is never followed
        return
    above |= {rdev}
    yield Span(f"{rdev}:0", own=True)
    name = identify_device(rdev, "")
    if name.startswith(_UNIQUE):
        yield Span(name, own=True)
    place = sysfs.sysfs_directory(rdev)
    if disk := sysfs.disk_of(rdev):
        first = int(sysfs.read_line(f"{place}/start") or 0) * _SECTOR
        last = first + int(sysfs.read_line(f"{place}/size") or 0) * _SECTOR
        yield from _spans_within(_spans_of_device(disk, above), first, last)
    for member in sysfs.members_of(rdev):
        yield from _inexact_spans(_spans_of_device(member, above))
    if backing := backing_file(rdev):
        first = int(sysfs.read_line(f"{place}/loop/offset") or 0)
        length = int(sysfs.read_line(f"{place}/loop/sizelimit") or 0)
        yield from _spans_within(_spans_of_backing(backing, above), first, first + length if length else _LAST)


def _spans_of_backing(path: str, above: frozenset[int]) -> Iterator[Span]:
    """The backing of a loop device: a file, or another device. A path of another mount namespace is not followed."""
    with suppress(OSError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            st = os.fstat(fd)
            yield from (
                _spans_of_device(st.st_rdev, above) if stat.S_ISBLK(st.st_mode) else _spans_of_file(fd, st, above)
            )
        finally:
            os.close(fd)


def _spans_of_file(fd: int, st: os.stat_result, above: frozenset[int]) -> Iterator[Span]:
    yield Span(f"{st.st_dev}:{st.st_ino}", own=True)
    if rdev := _disk_of(fd, st):
        yield from _inexact_spans(_spans_of_device(rdev, above))


def _spans_within(spans: Iterable[Span], first: int, last: int) -> Iterator[Span]:
    """The part of ``spans`` within a range; if a span's position is unknown, so is the position of the part."""
    for span in spans:
        if span.exact:
            yield replace(span, start=span.start + first, end=min(span.start + last, span.end), own=False)
        else:
            yield replace(span, own=False)


def _inexact_spans(spans: Iterable[Span]) -> Iterator[Span]:
    for span in spans:
        yield replace(span, own=False, exact=False)


def _disk_of(fd: int, st: os.stat_result) -> int:
    """The number of the device that holds a file's file system; 0 if no device does, or the device is not known."""
    if os.major(st.st_dev):
        return st.st_dev
    # Btrfs and others give their files a number of no device: the mount names the device.
    with suppress(OSError, ValueError, StopIteration):
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            fields = next(line.split() for line in file if line.split(" ", 1)[0] == mount)
        source = os.stat(fields[fields.index("-") + 2])
        return source.st_rdev if stat.S_ISBLK(source.st_mode) else 0
    return 0
