"""Facts about block devices below ``/sys/dev/block`` (Documentation/ABI/stable/sysfs-block)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from blockworker.system.identity import backing_file


def sysfs_directory(rdev: int) -> str:
    """The sysfs directory of a device, by device number."""
    return f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}"


def read_line(path: str) -> str:
    """The text of a file of sysfs, without the end of its line; "" if the file cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip("\n")
    except OSError:
        return ""


def read_number(path: str) -> int:
    """The device number ``MAJOR:MINOR`` in a file of sysfs; 0 if the file has none."""
    major, _, minor = read_line(path).partition(":")
    return os.makedev(int(major), int(minor)) if major and minor else 0


def names_in(path: str) -> list[str]:
    """The names in a directory of sysfs, sorted."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def node_of(rdev: int) -> str:
    """The path below ``/dev`` under which the kernel made a device; "" if the kernel names none."""
    for line in read_line(f"{sysfs_directory(rdev)}/uevent").splitlines():
        if line.startswith("DEVNAME="):
            return f"/dev/{line.removeprefix('DEVNAME=')}"
    return ""


def disk_of(rdev: int) -> int:
    """The disk of a partition; 0 for any other device."""
    place = sysfs_directory(rdev)
    return read_number(f"{os.path.dirname(os.path.realpath(place))}/dev") if read_line(f"{place}/partition") else 0


def members_of(rdev: int) -> list[int]:
    """The devices that a mapping or an array is made of."""
    place = f"{sysfs_directory(rdev)}/slaves"
    return [number for name in names_in(place) if (number := read_number(f"{place}/{name}/dev"))]


def parts_of(rdev: int) -> list[int]:
    """The partitions of a disk, and the mappings and arrays that a device is a member of."""
    place = sysfs_directory(rdev)
    parts = [f"{place}/{name}" for name in names_in(place) if os.path.exists(f"{place}/{name}/partition")]
    holders = [f"{place}/holders/{name}" for name in names_in(f"{place}/holders")]
    return [number for path in parts + holders if (number := read_number(f"{path}/dev"))]


def loops_on(st: os.stat_result) -> Iterator[int]:
    """The loop devices on a file, as far as their paths lead to the file from this mount namespace."""
    for name in names_in("/sys/block"):
        if name.startswith("loop") and (rdev := read_number(f"/sys/block/{name}/dev")):
            path = backing_file(rdev)
            try:
                found = os.stat(path) if path else None
            except OSError:
                continue
            if found is not None and (found.st_dev, found.st_ino) == (st.st_dev, st.st_ino):
                yield rdev
