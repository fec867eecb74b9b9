"""The digests of a published image, read piece by piece when they are needed: a large image costs no memory.

Rule: every used digest is part of the root. The pass that computes the root notes a hash of every piece of 1 MiB, and a
piece that is read later is first compared with its hash.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from typing import Final

from blake3 import blake3

from blockjobs.model.errors import VolumeError
from blockworker.copy.digests import LENGTH, PIECE, ZEROS, pieces_of
from blockworker.volumes.base import request_error

DIGEST: Final = "digest"  # the operation of a VolumeError for a mismatch between a digest and its content
_CACHED: Final = 4  # pieces of 1 MiB: the plan and every lane of a copy use one
_HOLE: Final = b""  # stands for the hash of a piece of zeros, which is not read


class ProvenDigests:
    """The digests of an image behind a descriptor; owns the descriptor. ``root`` is the digest of the digests.

    Memory: 32 bytes for 32 GiB of the image, and 4 MiB. Any thread may call any method.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, fd: int, label: str) -> None:
        self._fd, self._label = fd, label
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._hashes: list[bytes] = []
        whole = blake3()
        for piece in pieces_of(fd):
            whole.update(piece)
            empty = piece is ZEROS or piece.count(0) == len(piece)
            self._hashes.append(_HOLE if empty else blake3(piece).digest())
        self.root: Final = whole.hexdigest()

    def get(self, index: int, count: int = 1) -> bytes:
        """The digests of ``count`` chunks from chunk ``index`` on, in a row.

        Raises:
            VolumeError: the digest file cannot be read, or was changed after its root was computed.
        """
        here, end = index * LENGTH, (index + count) * LENGTH
        parts = []
        while here < end:
            number, begin = divmod(here, PIECE)
            part = self._piece(number)[begin : begin + end - here]
            parts.append(part)
            here += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, number: int) -> bytes:
        if self._hashes[number] is _HOLE:
            return ZEROS  # too long for the last piece, but no caller reads the excess
        with self._lock:
            if (piece := self._cache.get(number)) is None:
                piece = self._cache[number] = self._read(number)
                if len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(number)
            return piece

    def _read(self, number: int) -> bytes:
        start = number * PIECE
        try:
            piece = os.pread(self._fd, PIECE, start)
        except OSError as error:
            raise request_error("read", self._label, start, PIECE, error.errno) from None
        if blake3(piece).digest() != self._hashes[number]:
            text = f"bytes {start} to {start + PIECE} were changed while the image was compared with them"
            raise VolumeError(errno.EBADMSG, f"{self._label}: {text}", operation=DIGEST, offset=start, length=PIECE)
        return piece

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
