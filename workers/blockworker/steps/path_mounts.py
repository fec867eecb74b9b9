"""The file system of a path, found from the path's text and the kernel's table of mounts.

No path is touched for the answer: the answer comes even if the file system hangs.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from typing import Final

from blockjobs.model.volumespec import is_device_path

TABLE: Final = "/proc/self/mountinfo"
LINKS: Final = 40  # symlinks on one way, as in the kernel
KEEP: Final = 1.0  # seconds for which a table is used after it was read
_POINT: Final = 4  # the index of the mount point in a line
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def mount_points(table: str) -> tuple[str, ...]:
    """The mount points of the kernel's table, the longest first."""
    lines = [line.split(" ") for line in table.splitlines()]
    found = {_OCTAL.sub(lambda octal: chr(int(octal[1], 8)), line[_POINT]) for line in lines if len(line) > _POINT}
    return tuple(sorted(found, key=lambda point: (-len(point), point)))


def point_of(path: str, points: Iterable[str]) -> str:
    """The longest of the mount points that hold the path; ``/`` if none does."""
    return next((point for point in points if path == point or path.startswith(point.rstrip("/") + "/")), "/")


def resolve_to_mount(path: str, points: Iterable[str]) -> str:
    """A path with the symlinks resolved on the way to its mount point; nothing beneath a mount is touched."""
    mounts = frozenset(points) - {"/"}
    for _ in range(LINKS):
        here = ""
        for part in path.strip("/").split("/"):
            here = f"{here}/{part}"
            if here in mounts:
                return path
            try:
                link = os.readlink(here)
            except OSError:  # no link, or nothing at all
                continue
            rest = path[len(here) :].strip("/")
            path = os.path.normpath(os.path.join(os.path.dirname(here), link, rest))
            break
        else:
            return path
    return path


class MountTable:
    """The mounts of this host. ``roots``: configured paths; their symlinks are resolved once, at the start."""

    def __init__(self, roots: Iterable[str] = ()) -> None:
        self._points: tuple[str, ...] = ()
        self._read_at = float("-inf")
        pairs = ((root, resolve_to_mount(root, self._table())) for root in roots)
        self._aliases = sorted((pair for pair in pairs if pair[0] != pair[1]), key=lambda pair: -len(pair[0]))

    def beneath(self, point: str) -> tuple[str, ...]:
        """The mount points of other file systems below ``point``."""
        below = point.rstrip("/") + "/"
        return tuple(each for each in self._table() if each.startswith(below) and each != point)

    def _table(self) -> tuple[str, ...]:
        if time.monotonic() - self._read_at > KEEP:
            with open(TABLE, encoding="utf-8", errors="surrogateescape") as file:
                self._points = mount_points(file.read())
            self._read_at = time.monotonic()
        return self._points

    def point_of(self, path: str) -> str:
        """The mount point of a path's file system; a device is a file system of its own."""
        if is_device_path(path):
            return path
        for root, real in self._aliases:
            if path == root or path.startswith(root + "/"):
                path = real + path[len(root) :]
                break
        return point_of(path, self._table())
