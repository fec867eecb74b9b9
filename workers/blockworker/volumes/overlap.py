"""Which bytes of which media a file or a device lies on, so that two volumes that share bytes are known to meet.

A partition lies on its disk, a mapping or an array on its members, a loop device on its file, a file on the device that
holds its file system.  Facts: the kernel's ``/sys/dev/block`` (Documentation/ABI/stable/sysfs-block) and proc(5).
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
from blockworker.system.identity import backing_file, identify

_SECTOR: Final = 512  # bytes; the unit of sysfs, whatever the device's own is
_LAST: Final = 1 << 63  # behind the last byte of anything
# Names that a device has for itself and no other device has: two paths of one disk share them.
_UNIQUE: Final = ("wwid:", "device/wwid:", "dm/uuid:", "md/uuid:")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of one medium, which is named as the registry's locks name it (``RDEV:0`` or ``DEV:INODE``).

    ``own``: the span is the volume itself, not something below it.  ``exact``: the volume has all bytes of the span;
    otherwise the volume has some of them, and nobody knows which.
    """

    medium: str
    start: int = 0
    end: int = _LAST
    own: bool = False
    exact: bool = True

    def meets(self, other: Span) -> bool:
        """Whether the two certainly share bytes, as far as it is known which bytes they have."""
        shared = self.medium == other.medium and self.start < other.end and other.start < self.end
        return shared and (self.exact or other.exact)


def meet(one: Iterable[Span], other: Iterable[Span]) -> bool:
    """Whether two volumes share bytes: they are the same, one contains the other, or their ranges overlap."""
    others = list(other)
    return any(span.meets(beside) for span in one for beside in others)


def spans_of(fd: int) -> tuple[Span, ...]:
    """What an open file or block device is, and all that it lies on; the first span is the thing itself."""
    st = os.fstat(fd)
    if stat.S_ISBLK(st.st_mode):
        return tuple(dict.fromkeys(_device(st.st_rdev, frozenset())))
    return tuple(dict.fromkeys(_file(fd, st, frozenset())))


def spans_of_volume(roots: Roots, volume: Volume, *, published: bool = False) -> tuple[Span, ...]:
    """What the files and devices of a volume are, and all that they lie on; layers below the topmost image as well.

    ``published``: it is an image that a job has published, which may lie beneath a write root.

    Raises:
        JobFailed: one of them cannot be opened.
    """
    found: list[Span] = []
    open_file = roots.open_published if published else roots.open_source
    for place in volumespec.stores(volume):
        device = isinstance(place, DeviceVolume)
        fd = roots.open_device(place.filename) if device else open_file(place.filename)
        try:
            found += spans_of(fd)
        finally:
            os.close(fd)
    return tuple(dict.fromkeys(found))


def lock_text(spans: Iterable[Span]) -> str:
    """The names that a reader or writer of these spans locks, one a line.

    A name is locked for the thing itself, ``^`` and a name for what the thing lies on.
    """
    return "\n".join(dict.fromkeys(span.medium if span.own else f"^{span.medium}" for span in spans))


# --- the media ------------------------------------------------------------------------------------------


def _device(rdev: int, above: frozenset[int]) -> Iterator[Span]:
    if rdev in above:  # no device lies on itself; a loop in /sys is never followed
        return
    above |= {rdev}
    yield Span(f"{rdev}:0", own=True)
    name = identify(rdev, "")
    if name.startswith(_UNIQUE):
        yield Span(name, own=True)
    place = sysfs.place_of(rdev)
    if disk := sysfs.disk_of(rdev):
        first = int(sysfs.read_line(f"{place}/start") or 0) * _SECTOR
        last = first + int(sysfs.read_line(f"{place}/size") or 0) * _SECTOR
        yield from _within(_device(disk, above), first, last)
    for member in sysfs.members_of(rdev):
        yield from _somewhere(_device(member, above))
    if backing := backing_file(rdev):
        first = int(sysfs.read_line(f"{place}/loop/offset") or 0)
        length = int(sysfs.read_line(f"{place}/loop/sizelimit") or 0)
        yield from _within(_path(backing, above), first, first + length if length else _LAST)


def _path(path: str, above: frozenset[int]) -> Iterator[Span]:
    """The backing of a loop device: a file, or another device.  A path of another mount namespace is not followed."""
    with suppress(OSError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            st = os.fstat(fd)
            yield from _device(st.st_rdev, above) if stat.S_ISBLK(st.st_mode) else _file(fd, st, above)
        finally:
            os.close(fd)


def _file(fd: int, st: os.stat_result, above: frozenset[int]) -> Iterator[Span]:
    yield Span(f"{st.st_dev}:{st.st_ino}", own=True)
    if rdev := _disk_of(fd, st):
        yield from _somewhere(_device(rdev, above))


def _within(spans: Iterable[Span], first: int, last: int) -> Iterator[Span]:
    """What lies in a range of the things ``spans``; where a thing lies nobody knows where, neither does its range."""
    for span in spans:
        if span.exact:
            yield replace(span, start=span.start + first, end=min(span.start + last, span.end), own=False)
        else:
            yield replace(span, own=False)


def _somewhere(spans: Iterable[Span]) -> Iterator[Span]:
    for span in spans:
        yield replace(span, own=False, exact=False)


def _disk_of(fd: int, st: os.stat_result) -> int:
    """The number of the device that holds a file's file system; 0 where there is none, or it is not to be known."""
    if os.major(st.st_dev):
        return st.st_dev
    # Btrfs and others give their files a number of no device: the mount says which device it is of.
    with suppress(OSError, ValueError, StopIteration):
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            fields = next(line.split() for line in file if line.split(" ", 1)[0] == mount)
        source = os.stat(fields[fields.index("-") + 2])
        return source.st_rdev if stat.S_ISBLK(source.st_mode) else 0
    return 0
