"""What an attempt knows of its target, chunk by chunk: the digests, and which of them may be believed.

After a power cut a file of digests can be ahead of the data: a digest counts only if this very attempt put it there.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from blockworker.copy.digests import LENGTH, ZERO, DigestFile, digest_size
from blockworker.copy.zeros import append_range

_PIECE: Final = 1 << 15  # chunks that are looked at in one read


class Ledger:
    """Any thread may call anything; no two of them for one chunk at once."""

    def __init__(self, digests: DigestFile, size: int) -> None:
        self._digests = digests
        self._lock = threading.Lock()
        self._known = bytearray(digest_size(size) // LENGTH)

    def known(self, index: int) -> bool:
        """Whether it is certain what chunk ``index`` of the target holds."""
        return bool(self._known[index])

    def has(self, index: int, value: bytes) -> bool:
        """Whether chunk ``index`` of the target certainly has this digest."""
        return bool(self._known[index]) and self._digests.get(index) == value

    def forget(self, first: int, last: int) -> None:
        """These chunks are about to be written: should that fail half-way, nobody knows what they hold."""
        with self._lock:
            self._known[first:last] = bytes(last - first)

    def put(self, index: int, value: bytes) -> None:
        self._digests.put(index, value)
        self._known[index] = 1

    def zero(self, first: int, last: int) -> None:
        self._digests.zero(first, last)
        with self._lock:
            self._known[first:last] = b"\1" * (last - first)

    def not_zero(self, first: int, last: int) -> list[tuple[int, int]]:
        """The runs of chunks from ``first`` to before ``last`` that are not certainly zeros.

        Blocks of which all is known and zero are passed by at once: the work follows what is there.
        """
        runs: list[tuple[int, int]] = []
        for start in range(first, last, _PIECE):
            end = min(start + _PIECE, last)
            values = self._digests.get(start, end - start) if self._digests.may_hold(start, end) else b""
            known = self._known.count(1, start, end) == end - start
            if known and values.count(0) == len(values):
                continue
            for index in range(start, end):
                at = (index - start) * LENGTH
                if self._known[index] and values[at : at + LENGTH] in (ZERO, b""):
                    continue
                append_range(runs, index, index + 1)
        return runs

    def flush(self) -> None:
        self._digests.flush()


def scratch(size: int) -> DigestFile:
    """Digests that nobody asked for: in memory, 32 MiB for each TiB of data."""
    fd = os.memfd_create("digests")
    os.ftruncate(fd, digest_size(size))
    return DigestFile(fd, size, label="digests", fresh=True)
