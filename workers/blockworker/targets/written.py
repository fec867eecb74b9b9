"""Writes to an open file or device: whole, from an offset on, with bounded writeback, and a final flush error."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from contextlib import suppress
from typing import Final

from blockjobs.model.errors import VolumeError
from blockworker.system import kernel
from blockworker.volumes.base import expect_within, request_error

_STRIDE: Final = 8 << 20  # bytes; a complete stride is written back at once
_BEHIND: Final = 8  # strides in writeback before a writer waits for the oldest


class Written:
    """The bytes of a target from ``base`` on; ``label`` names the target in messages.  A subclass closes ``_fd``."""

    def __init__(self, fd: int, size: int, label: str, base: int = 0) -> None:
        self.size = size
        self._fd, self._label, self._base = fd, label, base
        self._punches = True  # until a call shows that holes cannot be punched
        self._broken: VolumeError | None = None
        self._writeback = Writeback(fd, base + size)

    def pwrite(self, view: memoryview, offset: int) -> None:
        expect_within(self.size, self._label, offset, len(view))
        at = self._base + offset
        try:
            kernel.pwrite_all(self._fd, view, at)
        except OSError as error:
            raise request_error("write", self._label, at, len(view), error.errno) from None
        self._writeback.wrote(at, len(view))

    def pread_into(self, view: memoryview, offset: int) -> None:
        at, done = self._base + offset, 0
        try:
            while done < len(view):
                got = os.preadv(self._fd, [view[done:]], at + done)
                if not got:
                    raise request_error("compare", self._label, at, len(view), errno.EIO, why="it became shorter")
                done += got
        except OSError as error:
            raise request_error("compare", self._label, at, len(view), error.errno) from None

    def flush(self) -> None:
        """Make every byte durable.  After a VolumeError each call raises the error: the kernel reports it once."""
        if self._broken is not None:
            raise self._broken
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._broken = request_error("flush", self._label, 0, self.size, error.errno)
            raise self._broken from None
        self._writeback.flushed()


class Writeback:
    """Start the writeback of each complete stride, and drop durable strides from the page cache.

    The writeback has a separate descriptor: the kernel reports a failed writeback once to each open file, and ``flush``
    has to get the report.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
        self._size = size
        self._lock = threading.Lock()
        self._filled: dict[int, int] = {}  # stride -> bytes written in it
        self._started: deque[int] = deque()

    def wrote(self, offset: int, length: int) -> None:
        index, oldest = offset // _STRIDE, -1
        with self._lock:
            filled = self._filled.get(index, 0) + length
            self._filled[index] = filled
            if filled < _STRIDE and offset + length < self._size:
                return
            del self._filled[index]
            self._started.append(index)
            if len(self._started) > _BEHIND:
                oldest = self._started.popleft()
        with suppress(OSError):
            kernel.sync_file_range(self._fd, index * _STRIDE, _STRIDE, kernel.WRITE)
        if oldest >= 0:
            self._finish(oldest)

    def flushed(self) -> None:
        """Drop every stride from the page cache: the bytes are on the disk."""
        with self._lock:
            started = list(self._started)
            self._started.clear()
        for index in started:
            self._drop(index)

    def _finish(self, index: int) -> None:
        with suppress(OSError):
            every = kernel.WAIT_BEFORE | kernel.WRITE | kernel.WAIT_AFTER
            kernel.sync_file_range(self._fd, index * _STRIDE, _STRIDE, every)
        self._drop(index)

    def _drop(self, index: int) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._fd, index * _STRIDE, _STRIDE, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._fd)
