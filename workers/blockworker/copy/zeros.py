"""The zeros of a chunk, by blocks: mostly empty chunks take only the space of their data. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

BLOCK: Final = 64 << 10  # bytes; the cluster of a qcow2 and the grain of a vmdk
_ZEROS: Final = bytearray(BLOCK)

Ranges = list[tuple[int, int]]


def split_zeros(view: memoryview, ranges: Iterable[tuple[int, int]]) -> tuple[Ranges, Ranges]:
    """The parts of ``ranges`` (offsets in ``view``, in order) with data, and the parts that are zeros.

    Zeros are found by whole blocks of ``view`` (or the part of a block within the range); neighbours are merged.
    """
    data: Ranges = []
    zeros: Ranges = []
    for start, end in ranges:
        here = start
        if start % BLOCK == 0 and 0 not in view[start:end:BLOCK]:  # no block begins with a zero: the usual case
            append_range(data, start, end)
            continue
        while here < end:
            stop = min(end, here - here % BLOCK + BLOCK)
            # A bytearray on the left: bytes == memoryview compares item by item, 75 times slower.
            blank = (_ZEROS if stop - here == BLOCK else _ZEROS[: stop - here]) == view[here:stop]
            append_range(zeros if blank else data, here, stop)
            here = stop
    return data, zeros


def append_range(ranges: Ranges, start: int, end: int) -> None:
    """Add a range behind the last range, merged with it if they touch."""
    if ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], end)
    else:
        ranges.append((start, end))


def whole_blocks(ranges: Iterable[tuple[int, int]], size: int, block: int = BLOCK) -> Ranges:
    """The blocks of a chunk of ``size`` bytes that the ranges touch, neighbours merged."""
    blocks: Ranges = []
    for start, end in ranges:
        low, high = start - start % block, min(size, -(-end // block) * block)
        if blocks and blocks[-1][1] >= low:
            blocks[-1] = (blocks[-1][0], max(blocks[-1][1], high))
        else:
            blocks.append((low, high))
    return blocks
