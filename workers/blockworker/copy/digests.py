"""The digests of an image: 32 bytes of blake3 per 1 MiB chunk, in one flat file with holes.

The digest of a chunk of zeros is 32 zero bytes: a sparse image has a sparse digest file. The file has exactly 32 bytes
a chunk; its own blake3 is the root named in the manifest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final, Protocol

from blake3 import blake3

from blockworker.system import kernel
from blockworker.volumes.base import request_error
from blockworker.volumes.traces import Traces

CHUNK: Final = 1 << 20  # bytes of the image for one digest
LENGTH: Final = 32
ZERO: Final = bytes(LENGTH)
PIECE: Final = 1 << 20  # bytes of a digest file read at once: the digests of 32 GiB of the image
ZEROS: Final = bytes(PIECE)
_TRACED: Final = 4096  # bytes of the file that share one mark


def digest_size(size: int) -> int:
    """The length of the digest file of an image of ``size`` bytes."""
    return -(-size // CHUNK) * LENGTH


def chunk_digest(view: memoryview) -> bytes:
    """The digest of one chunk that is not all zeros."""
    return blake3(view).digest()


class Digests(Protocol):
    """The receiver of the digest of every written chunk."""

    def put(self, index: int, value: bytes) -> None: ...

    def zero(self, first: int, last: int) -> None: ...

    def flush(self) -> None: ...


class DigestFile:
    """The digest file of a staging file. Owns the descriptor. ``fresh``: no earlier process wrote to the file."""

    def __init__(self, fd: int, size: int, *, label: str, fresh: bool) -> None:
        self._fd, self._label = fd, label
        self._length = digest_size(size)
        self._traces = Traces(self._length, _TRACED, fresh=fresh)

    def put(self, index: int, value: bytes) -> None:
        """Note the digest of chunk ``index``."""
        self._traces.mark(index * LENGTH, LENGTH)
        try:
            kernel.pwrite_all(self._fd, value, index * LENGTH)
        except OSError as error:
            raise request_error("write", self._label, index * LENGTH, LENGTH, error.errno) from None

    def get(self, index: int, count: int = 1) -> bytes:
        """The digests of ``count`` chunks from ``index`` on, one behind the other."""
        try:
            return os.pread(self._fd, count * LENGTH, index * LENGTH)
        except OSError as error:
            raise request_error("compare", self._label, index * LENGTH, LENGTH, error.errno) from None

    def may_hold(self, first: int, last: int) -> bool:
        """Whether any of the chunks from ``first`` to before ``last`` may have a digest that is not zero."""
        start, end = first * LENGTH, last * LENGTH
        if not self._traces.may_hold(start, end - start):
            return False
        return next(kernel.data_ranges(self._fd, start, end), None) is not None

    def zero(self, first: int, last: int) -> None:
        """Note that the chunks from ``first`` to before ``last`` are zeros."""
        start, end = first * LENGTH, min(last * LENGTH, self._length)
        if not self._traces.may_hold(start, end - start):
            return
        try:
            for here, till in kernel.data_ranges(self._fd, start, end):
                self._blank(here, till)
        except OSError as error:
            raise request_error("write", self._label, start, end - start, error.errno) from None

    def _blank(self, start: int, end: int) -> None:
        while start < end:
            piece = os.pread(self._fd, min(PIECE, end - start), start)
            if not piece:
                return
            if piece.count(0) != len(piece):  # the file stays sparse
                self._traces.mark(start, len(piece))
                kernel.pwrite_all(self._fd, bytes(len(piece)), start)
            start += len(piece)

    def start_over(self) -> None:
        """Forget every digest.  Raises OSError."""
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self._length)
        self._traces = Traces(self._length, _TRACED, fresh=True)

    def flush(self) -> None:
        """Make durable the digests noted before the call."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise request_error("flush", self._label, 0, self._length, error.errno) from None

    def root(self) -> str:
        """The digest of all digests, hexadecimal."""
        return root_of(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # first: close releases it even after an error
            os.close(fd)


def root_of(fd: int) -> str:
    """The root of the digest file behind ``fd``, in hexadecimal digits."""
    whole = blake3()
    for piece in pieces_of(fd):
        whole.update(piece)
    return whole.hexdigest()


def pieces_of(fd: int) -> Iterator[bytes]:
    """The content of a digest file in pieces of 1 MiB; the holes of the file are not read.

    For a piece that is a hole, the object ``ZEROS`` is returned (the last piece of the file may be shorter than 1 MiB).
    """
    size, data = os.fstat(fd).st_size, -1
    for offset in range(0, size, PIECE):
        length = min(PIECE, size - offset)
        if data < offset:
            data = _next_data(fd, offset, size)
        if data >= offset + length:
            yield ZEROS if length == PIECE else bytes(length)
            continue
        piece = os.pread(fd, length, offset)
        if len(piece) != length:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        yield piece


def _next_data(fd: int, offset: int, size: int) -> int:
    """The begin of the next data of a file; ``size`` if no data follows ``offset``."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset  # a file system without SEEK_DATA: everything is data
