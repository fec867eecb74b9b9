"""Free space on the file systems of targets, compared with the space that the images will need."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Roots


class Room:
    """Free and needed bytes on the file systems of some targets."""

    def __init__(self, roots: Roots, needed: Mapping[int, int] | None = None) -> None:
        """``needed``: bytes by file system for targets that were opened before."""
        self._roots = roots
        self._needed = dict(needed or {})
        self._free: dict[int, int] = {}  # free bytes when the first target of the file system was added

    def add(self, directory: str, needed: int) -> tuple[int, str]:
        """Add the need of a target in this directory; return the number of the file system, and an error text.

        The text is "" if there is room for every target added.
        """
        existing = directory
        while True:
            try:
                fd = self._roots.open_dir(existing)
                break
            except JobFailed as failed:
                if failed.errno != errno.ENOENT or existing == self._roots.root_of(existing, write=True).path:
                    raise
                existing = os.path.dirname(existing)  # a directory that OPEN will make
        try:
            dev, room = os.fstat(fd).st_dev, os.fstatvfs(fd)
        finally:
            os.close(fd)
        total = self._needed.get(dev, 0) + needed
        free = self._free.setdefault(dev, room.f_bavail * room.f_frsize)
        self._needed[dev] = total
        where = f"{directory} on host {self._roots.config.name}"
        return dev, f"the file system of {where} needs {total} bytes, {free} are free" if total > free else ""

    def take(self, directory: str, needed: int) -> None:
        """Add the need of a target in this directory.

        Raises:
            JobFailed: ENOSPC: the targets of the file system need more bytes than are free.
        """
        if wrong := self.add(directory, needed)[1]:
            raise JobFailed(errno.ENOSPC, wrong)
