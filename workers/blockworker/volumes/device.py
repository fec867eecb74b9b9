"""A block device as a source, read past the page cache: no holes are known, and no time stamp shows a change.

Pages of the device may be cached from earlier reads, and a file system on the device writes without updating the
device's cache: cached pages may be old.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from blockworker.volumes.base import Extent, Identity
from blockworker.volumes.condition import identity_of
from blockworker.volumes.direct import MediumReader


class DeviceSource:
    """A device opened by ``Roots.open_device``; owns the descriptor."""

    def __init__(self, fd: int, label: str) -> None:
        self._fd, self._label = fd, label
        self.size = os.lseek(fd, 0, os.SEEK_END)
        self._reader = MediumReader(fd, label)

    @property
    def from_medium(self) -> bool:
        """Whether every byte read came from the device itself, and none from a cache."""
        return self._reader.from_medium

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._reader.read(view, offset)

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        if length:
            yield Extent(start, length, data=True)

    def identity(self) -> Identity:
        return identity_of(self._fd, self._label)

    def allocated(self) -> int:
        return self.size

    def close(self) -> None:
        if self._fd >= 0:
            self._reader.close()
            os.close(self._fd)
            self._fd = -1
