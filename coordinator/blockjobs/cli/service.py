"""The first steps of every process of the control plane and of a host, before any thread exists."""

from __future__ import annotations

import ctypes
from typing import Final

from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import start_logging

MALLOPT: Final = {
    # option of mallopt(3): (number, value)
    "M_ARENA_MAX": (-8, 2),
    "M_MMAP_THRESHOLD": (-3, (1 << 20) + (1 << 16)),  # bytes: a chunk's buffer is reused, larger blocks are returned
    "M_TRIM_THRESHOLD": (-1, 4 << 20),  # bytes: higher, else a buffer would be returned and requested for each chunk
}


def set_up_service() -> None:
    """Log to stderr, and set the C library's heap up for a process that runs for months.

    By default the C library gives every thread a separate heap, up to eight for each CPU, and puts even blocks of
    megabytes into the heap after the first release of a large block; a heap does not return the space between two
    blocks. A coordinator of a dozen threads thus grew for hours: at times the interpreter builds the table of names
    (1.9 MB) anew, in the heap of some thread.
    """
    start_logging()
    bear_lost_output()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # a C library without mallopt has no heaps of this kind
        for number, value in MALLOPT.values():
            libc.mallopt(number, value)
