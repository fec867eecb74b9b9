"""A block device as a source: no holes are known, and it cannot tell whether it changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from blockworker.volumes.base import Extent, Identity
from blockworker.volumes.condition import look_at
from blockworker.volumes.file import CacheTrail, read_full


class DeviceSource:
    """A device that was opened by ``Roots.open_device``; owns the descriptor."""

    def __init__(self, fd: int, label: str) -> None:
        self._fd, self._label = fd, label
        self.size = os.lseek(fd, 0, os.SEEK_END)
        self._trail = CacheTrail(fd)

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._trail.before_read(offset)
        read_full(self._fd, view, offset, self._label)

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        if length:
            yield Extent(start, length, data=True)

    def identity(self) -> Identity:
        return look_at(self._fd, self._label)

    def allocated(self) -> int:
        return self.size

    def close(self) -> None:
        if self._fd >= 0:
            self._trail.finish()
            os.close(self._fd)
            self._fd = -1
