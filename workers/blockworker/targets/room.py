"""The room on the file systems of targets, against what their images are going to need."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Roots


class Room:
    """The room on the file systems of some targets, and how much of it they are going to need, in bytes."""

    def __init__(self, roots: Roots, needed: Mapping[int, int] | None = None) -> None:
        """``needed``: of targets that were opened before, by file system."""
        self._roots = roots
        self._needed = dict(needed or {})
        self._free: dict[int, int] = {}  # as it was when the first target was looked at

    def add(self, directory: str, needed: int) -> tuple[int, str]:
        """Add the need of one more target in this directory: the number of its file system, and what is too little.

        The text is "" where there is room for all of them.
        """
        existing = directory
        while True:
            try:
                fd = self._roots.open_dir(existing)
                break
            except JobFailed as failed:
                if failed.errno != errno.ENOENT or existing == self._roots.root_of(existing, write=True).path:
                    raise
                existing = os.path.dirname(existing)  # a directory that OPEN is going to make
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
        """Add the need of one more target in this directory.

        Raises:
            JobFailed: ENOSPC: the targets of its file system need more than is free.
        """
        if wrong := self.add(directory, needed)[1]:
            raise JobFailed(errno.ENOSPC, wrong)
