"""The digests of an image: 32 bytes of blake3 for each 1 MiB chunk, in one flat file with holes.

A chunk of zeros has 32 zero bytes, so that a sparse image has a sparse file of digests.  The file ends
exactly at 32 bytes a chunk; its own blake3 is the root that the manifest names.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from blake3 import blake3

from blockworker.volumes.base import trouble

CHUNK: Final = 1 << 20  # bytes of the image that one digest stands for
LENGTH: Final = 32
ZERO: Final = bytes(LENGTH)
_PIECE: Final = 1 << 20


def digest_size(size: int) -> int:
    """The length of the digest file of an image of ``size`` bytes."""
    return -(-size // CHUNK) * LENGTH


def digest(view: memoryview) -> bytes:
    """The digest of one chunk that is not all zeros."""
    return blake3(view).digest()


class Digests(Protocol):
    """Who is told of each chunk that was written."""

    def put(self, index: int, value: bytes) -> None: ...

    def zero(self, first: int, last: int) -> None: ...

    def flush(self) -> None: ...


class DigestFile:
    """The digest file of a staging file.  Owns the descriptor.  ``fresh``: nobody ever wrote to it."""

    def __init__(self, fd: int, size: int, *, label: str, fresh: bool) -> None:
        self._fd, self._label, self._fresh = fd, label, fresh
        self._length = digest_size(size)

    def put(self, index: int, value: bytes) -> None:
        """Note the digest of chunk ``index``."""
        try:
            os.pwrite(self._fd, value, index * LENGTH)
        except OSError as error:
            raise trouble("write", self._label, index * LENGTH, LENGTH, error.errno) from None

    def get(self, index: int, count: int = 1) -> bytes:
        """The digests of ``count`` chunks from ``index`` on, one behind the other."""
        try:
            return os.pread(self._fd, count * LENGTH, index * LENGTH)
        except OSError as error:
            raise trouble("compare", self._label, index * LENGTH, LENGTH, error.errno) from None

    def zero(self, first: int, last: int) -> None:
        """Note that the chunks from ``first`` to before ``last`` are zeros."""
        if self._fresh:
            return
        start, end = first * LENGTH, min(last * LENGTH, self._length)
        try:
            while start < end:
                piece = os.pread(self._fd, min(_PIECE, end - start), start)
                if not piece:
                    return
                if piece.count(0) != len(piece):  # only where an attempt before us wrote: the file stays sparse
                    os.pwrite(self._fd, bytes(len(piece)), start)
                start += len(piece)
        except OSError as error:
            raise trouble("write", self._label, start, end - start, error.errno) from None

    def flush(self) -> None:
        """Make durable what was noted before the call."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise trouble("flush", self._label, 0, self._length, error.errno) from None

    def root(self) -> str:
        """The digest of all digests, hexadecimal."""
        return root_of(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def root_of(fd: int) -> str:
    """The root of the digest file behind ``fd``."""
    whole, offset = blake3(), 0
    while piece := os.pread(fd, _PIECE, offset):
        whole.update(piece)
        offset += len(piece)
    return whole.hexdigest()
