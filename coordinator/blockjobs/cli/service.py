"""What every process of the control plane and of a host begins with, before it has any thread."""

from __future__ import annotations

import ctypes
from typing import Final

from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import start_logging

MALLOPT: Final = {
    # option of mallopt(3): (its number, what it is set to)
    "M_ARENA_MAX": (-8, 2),
    "M_MMAP_THRESHOLD": (-3, (1 << 20) + (1 << 16)),  # bytes: a chunk's buffer is used again, what is larger goes back
    "M_TRIM_THRESHOLD": (-1, 4 << 20),  # bytes: above, else a buffer would go back and come anew for each chunk
}


def begin() -> None:
    """Log to stderr, and set the C library's heap up for a process that runs for months.

    Left alone, it gives each thread a heap of its own, up to eight for each CPU, and puts even a block of megabytes in
    there once one was freed; a heap does not give back what lies between two blocks.  A coordinator of a dozen threads
    grew for hours so: at times the interpreter builds its table of names (1.9 MB) anew, in the heap of some thread.
    """
    start_logging()
    bear_lost_output()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not every C library has it, and those that have not have no such heaps
        for number, value in MALLOPT.values():
            libc.mallopt(number, value)
