"""An attempt's knowledge of its target, chunk by chunk: the digests, and which digests are certain.

After a power cut a digest file can be ahead of the data: a digest counts only if this very attempt wrote it.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from blockworker.copy.digests import LENGTH, ZERO, DigestFile, digest_size
from blockworker.copy.zeros import append_range

_PIECE: Final = 1 << 15  # chunks whose digests are read at once


class Ledger:
    """The certain digests of a target. Any thread may call any method; a chunk belongs to one thread at a time."""

    def __init__(self, digests: DigestFile, size: int) -> None:
        self._digests = digests
        self._lock = threading.Lock()
        self._known = bytearray(digest_size(size) // LENGTH)

    def known(self, index: int) -> bool:
        """Whether the content of chunk ``index`` of the target is certain."""
        return bool(self._known[index])

    def has(self, index: int, value: bytes) -> bool:
        """Whether chunk ``index`` of the target certainly has the digest ``value``."""
        return bool(self._known[index]) and self._digests.get(index) == value

    def forget(self, first: int, last: int) -> None:
        """Mark chunks as uncertain, before a write: if the write fails half-way, their content is unknown."""
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

        Blocks of certain zeros are skipped at once: the work grows with the data.
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


def scratch_digest_file(size: int) -> DigestFile:
    """A digest file without an owner on disk: in memory, 32 MiB per TiB of data."""
    fd = os.memfd_create("digests")
    os.ftruncate(fd, digest_size(size))
    return DigestFile(fd, size, label="digests", fresh=True)
