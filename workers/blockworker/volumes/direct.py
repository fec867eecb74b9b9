"""Reads of the medium itself: past the page cache if possible, else after dropping the range from the cache.

The page cache of a mounted device is not the cache of its files: a page read earlier from the device is not updated
when a file system writes the block. A page read before a disk went bad proves nothing.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import stat
import threading
from contextlib import suppress
from typing import Final

from blockworker.system import kernel
from blockworker.system.filesystem import filesystem_kind
from blockworker.volumes.base import request_error
from blockworker.volumes.file import FileSource, read_full

log = logging.getLogger(__name__)

_ALIGNMENT: Final = 4096  # bytes: accepted by every file system for a direct read; a device has its own sector size
_BOUNCE: Final = 1 << 20  # bytes that one read of an unaligned range brings at most
_MEMORY: Final = ("tmpfs", "ramfs")  # file systems without any medium but the page cache
_REFUSALS: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


def takes_direct(fd: int) -> bool:
    """Whether an open file or device can be read past the page cache; tmpfs and some others cannot."""
    try:
        os.close(_reopen_direct(fd))
    except OSError:
        return False
    return True


def drop_cache(fd: int, offset: int = 0, length: int = 0) -> bool:
    """Drop a range of a file or device from the page cache (``length`` 0: to the end); whether the whole range is gone.

    Dirty or mapped pages stay; if the kernel cannot tell (before Linux 6.5), pages count as left.
    """
    try:
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
        return kernel.cached_pages(fd, offset, length) == 0
    except OSError:
        return False


def _reopen_direct(fd: int) -> int:
    """A descriptor for direct reads. Raises OSError: direct reads are not possible."""
    if (
        stat.S_ISREG(os.fstat(fd).st_mode) and filesystem_kind(fd)[0] in _MEMORY
    ):  # since Linux 6.6 they take the flag all the same
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)


class MediumReader:
    """Reads an open file or device from its medium. Any thread may read; the descriptor stays the caller's."""

    def __init__(self, fd: int, label: str) -> None:
        self._fd, self._label = fd, label
        self._block = _ALIGNMENT
        if stat.S_ISBLK(os.fstat(fd).st_mode):
            self._block = kernel.sector_size(fd)
        self._room = threading.local()  # a buffer per thread, made by its first unaligned read
        self._cached = False
        self._direct = -1
        try:
            self._direct = _reopen_direct(fd)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            log.warning("%s cannot be read past the page cache: what is cached is dropped first", label)
            with suppress(OSError):
                os.fdatasync(fd)  # dirty pages could not be dropped

    @property
    def from_medium(self) -> bool:
        """Whether every byte read up to now came from the medium; otherwise some may have come from the cache."""
        return not self._cached

    def read(self, view: memoryview, offset: int) -> None:
        """Fill ``view``.  Raises VolumeError (``operation="read"``)."""
        if not view:
            return
        if self._direct < 0:
            self._read_dropped(view, offset)
            return
        try:
            self._read_direct(view, offset)
        except OSError as error:
            if error.errno not in _REFUSALS:  # some file systems take the flag, and refuse the read
                raise request_error("read", self._label, offset, len(view), error.errno) from None
            self._read_dropped(view, offset)

    def close(self) -> None:
        """Close the descriptor for direct reads. May be called again."""
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1

    def _read_dropped(self, view: memoryview, offset: int) -> None:
        if not drop_cache(self._fd, offset, len(view)):
            self._cached = True
        read_full(self._fd, view, offset, self._label)

    def _read_direct(self, view: memoryview, offset: int) -> None:
        """Read whole blocks straight into an aligned buffer; other bytes go through the thread's aligned buffer."""
        block, done = self._block, 0
        while done < len(view):
            here, rest = offset + done, view[done:]
            whole = len(rest) - len(rest) % block
            if whole and here % block == 0 and _buffer_address(rest) % block == 0:
                done += self._filled(rest[:whole], here, whole)
                continue
            first = here - here % block
            last = min(-(-(offset + len(view)) // block) * block, first + _BOUNCE)
            bounce = self._bounce()[: last - first]
            wanted = min(last, offset + len(view)) - here
            self._filled(bounce, first, here - first + wanted)
            view[done : done + wanted] = bounce[here - first : here - first + wanted]
            done += wanted

    def _filled(self, view: memoryview, offset: int, wanted: int) -> int:
        """Read whole blocks until the first ``wanted`` bytes are read; the file may end behind them."""
        done = 0
        while done < wanted:
            got = os.preadv(self._direct, [view[done:]], offset + done)
            done += got
            if done < wanted and (not got or done % self._block):
                ended = f"it ended at {offset + done}: it became shorter under the copy"
                raise request_error("read", self._label, offset, wanted, errno.EIO, why=ended)
        return wanted

    def _bounce(self) -> memoryview:
        room = getattr(self._room, "view", None)
        if room is None:
            room = self._room.view = memoryview(mmap.mmap(-1, _BOUNCE))
        view: memoryview = room
        return view


class MediumFile(FileSource):
    """A file read from its medium: bytes in the cache alone prove nothing about a published image."""

    def __init__(self, fd: int, label: str) -> None:
        super().__init__(fd, label)
        self._reader = MediumReader(fd, label)

    @property
    def from_medium(self) -> bool:
        """Whether every byte read up to now came from the medium; otherwise some may have come from the cache."""
        return self._reader.from_medium

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._reader.read(view, offset)

    def close(self) -> None:
        self._reader.close()
        super().close()


def _buffer_address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
