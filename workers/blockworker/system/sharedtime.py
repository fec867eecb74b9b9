"""A time that a worker's main process and its children share: shared memory, made before the fork."""

from __future__ import annotations

import mmap
import struct
from typing import Final

_DOUBLE: Final = struct.Struct("d")


class SharedTime:
    """Seconds by CLOCK_BOOTTIME, 0.0 at first; a read returns the last write of any process."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _DOUBLE.size)

    def write(self, at: float) -> None:
        self._memory[:] = _DOUBLE.pack(at)

    def read(self) -> float:
        return float(_DOUBLE.unpack(self._memory[:])[0])
