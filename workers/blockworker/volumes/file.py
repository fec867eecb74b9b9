"""A regular file as a source: holes are known, and the page cache is left as found."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from blockworker.system import kernel
from blockworker.volumes.base import Extent, Identity, request_error
from blockworker.volumes.condition import identity_of

_STRIDE: Final = 32 << 20  # bytes; the cache is looked at and dropped in pieces of this size
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class CacheTrail:
    """Drops the page cache behind a reader, except for data cached before: another process uses such data."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._reading: dict[int, bool] = {}  # stride -> whether the stride may be dropped
        with suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def before_read(self, offset: int) -> None:
        """Note the offset of a request, before the request is made."""
        stride = offset // _STRIDE
        if stride in self._reading:
            return
        with self._lock:
            if stride in self._reading:
                return
            self._reading[stride] = not self._cached(stride)
            # No lane reads two strides back any more: lanes are chunks apart.
            behind = [other for other in self._reading if abs(other - stride) >= 2]
            drops = [other for other in behind if self._reading.pop(other)]
        for other in drops:
            self._drop(other)

    def finish(self) -> None:
        """Drop the remaining strides, at close."""
        with self._lock:
            drops = [stride for stride, drop in self._reading.items() if drop]
            self._reading.clear()
        for stride in drops:
            self._drop(stride)

    def _cached(self, stride: int) -> bool:
        # Readahead of the stride before may have cached the first few MiB: these pages are ours.
        try:
            return kernel.cached_pages(self._fd, stride * _STRIDE, _STRIDE) > _STRIDE // _PAGE // 2
        except OSError:
            return False  # an older kernel: not known

    def _drop(self, stride: int) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._fd, stride * _STRIDE, _STRIDE, os.POSIX_FADV_DONTNEED)


def read_full(fd: int, view: memoryview, offset: int, label: str) -> None:
    """Fill ``view`` from ``fd``; an early end is an error, as a volume does not shrink under a copy."""
    done = 0
    while done < len(view):
        try:
            got = os.preadv(fd, [view[done:]], offset + done)
        except OSError as error:
            raise request_error("read", label, offset, len(view), error.errno) from None
        if got == 0:
            ended = f"it ended at {offset + done}: it became shorter under the copy"
            raise request_error("read", label, offset, len(view), errno.EIO, why=ended)
        done += got


class FileSource:
    """A file opened by ``Roots.open_source``; owns the descriptor."""

    def __init__(self, fd: int, label: str) -> None:
        self._fd, self._label = fd, label
        self.size = os.fstat(fd).st_size
        self._trail = CacheTrail(fd)

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._trail.before_read(offset)
        read_full(self._fd, view, offset, self._label)

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        end = start + length
        for data, hole in kernel.data_ranges(self._fd, start, end):
            if data > start:
                yield Extent(start, data - start, data=False)
            yield Extent(data, hole - data, data=True)
            start = hole
        if start < end:
            yield Extent(start, end - start, data=False)

    def identity(self) -> Identity:
        return identity_of(self._fd, self._label)

    def allocated(self) -> int:
        return min(os.fstat(self._fd).st_blocks * 512, self.size)

    def close(self) -> None:
        if self._fd >= 0:
            self._trail.finish()
            os.close(self._fd)
            self._fd = -1
