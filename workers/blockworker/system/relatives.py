"""Devices and files that share bytes with a block device, opened: QEMU locks only the given device.

A guest on a whole disk locks no partition of the disk, and a guest on a partition does not lock the disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from blockworker.system import sysfs
from blockworker.system.identity import backing_file

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def open_relatives(fd: int) -> list[int]:
    """Read-only descriptors of every device and file above and below an open device; empty for a file.

    The caller closes the descriptors. Devices that cannot be opened, or belong to another mount namespace, are left
    out.
    """
    st = os.fstat(fd)
    if not stat.S_ISBLK(st.st_mode):
        return []
    opened = []
    for path, rdev in _relative_paths(st.st_rdev):
        with suppress(OSError):
            relative = os.open(path, _FLAGS)
            found = os.fstat(relative)
            if found.st_rdev == rdev and (stat.S_ISBLK(found.st_mode) or stat.S_ISREG(found.st_mode)):
                opened.append(relative)
            else:
                os.close(relative)
    return opened


def _relative_paths(rdev: int) -> Iterator[tuple[str, int]]:
    """Path of every relative, and its device number; 0 for a file."""
    seen = {rdev}
    for step in (_devices_below, sysfs.parts_of):
        going = [rdev]
        while going:
            here = going.pop()
            for number in step(here):
                if number not in seen:
                    seen.add(number)
                    going.append(number)
                    yield sysfs.node_of(number), number
            if step is _devices_below and (path := backing_file(here)) and not path.startswith("/dev/"):
                yield path, 0


def _devices_below(rdev: int) -> list[int]:
    disk, backing = sysfs.disk_of(rdev), 0
    path = backing_file(rdev)
    if path.startswith("/dev/"):  # a loop device on another device
        with suppress(OSError):
            backing = os.stat(path).st_rdev
    return [number for number in (disk, backing, *sysfs.members_of(rdev)) if number]
