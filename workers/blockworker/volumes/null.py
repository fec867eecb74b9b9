"""QEMU's ``null-co``, a volume without a disk: for tests of everything but the disk, and as a sink."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from blockjobs.model.volumespec import NullVolume
from blockworker.volumes.base import Extent, Identity, expect_within

_GARBAGE: Final = memoryview(bytes(range(1, 256)) * 4112)  # a little over 1 MiB, nowhere a zero


class NullSource:
    """Reads as zeros (reported as holes), or as the same garbage at every read."""

    def __init__(self, volume: NullVolume) -> None:
        self.size = volume.size
        self._zeroes = volume.read_zeroes
        self._latency = volume.latency_ns / 1e9

    def pread_into(self, view: memoryview, offset: int) -> None:  # noqa: ARG002
        if self._latency:
            time.sleep(self._latency)
        for start in range(0, len(view), len(_GARBAGE)):
            part = view[start : start + len(_GARBAGE)]
            part[:] = bytes(len(part)) if self._zeroes else _GARBAGE[: len(part)]

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        # With a latency even zeros are read one by one, else nothing would ever take time.
        if length:
            yield Extent(start, length, data=not self._zeroes or self._latency > 0)

    def identity(self) -> Identity:
        return Identity("none", size=self.size)

    def allocated(self) -> int:
        return 0 if self._zeroes else self.size  # every byte of the garbage lands in the target

    def close(self) -> None:
        pass


class NullTarget:
    """Discards every write."""

    def __init__(self, size: int, latency_ns: int = 0) -> None:
        self.size = size
        self._latency = latency_ns / 1e9

    def pwrite(self, view: memoryview, offset: int) -> None:
        expect_within(self.size, "null-co", offset, len(view))
        if self._latency:
            time.sleep(self._latency)

    def pread_into(self, view: memoryview, offset: int) -> None:  # noqa: ARG002
        view[:] = bytes(len(view))

    def zero(self, offset: int, length: int) -> None:
        expect_within(self.size, "null-co", offset, length)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
