"""Reading around bad sectors: readable parts are read, down to single pages, and the unreadable pages are listed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from blockjobs.model.errors import VolumeError
from blockworker.copy.zeros import Ranges, append_range
from blockworker.volumes.base import VolumeGone

PAGE: Final = 4096  # bytes; the least that is given up
# A disk's errors for a place on it. Any other error concerns the whole disk, or the way to it: then no sector is
# skipped.
_OF_A_SECTOR: Final = frozenset({errno.EIO, errno.EILSEQ, errno.ENODATA, errno.EREMOTEIO, errno.EBADMSG, errno.EUCLEAN})


def is_of_sector(error: VolumeError) -> bool:
    """Whether a read error may concern a few sectors only, and bytes around them are worth a try."""
    return error.operation == "read" and error.errno in _OF_A_SECTOR and not isinstance(error, VolumeGone)


def read_around(
    read: Callable[[memoryview, int], None], view: memoryview, offset: int, step: Callable[[], None]
) -> Ranges:
    """Fill ``view`` from ``offset`` on; unreadable pages become zeros.

    Returns the unreadable pages (offsets of the volume), neighbours merged. ``step`` is called before every try, and
    may raise.

    Raises:
        VolumeError: an error that does not concern single sectors.
    """
    lost: Ranges = []
    todo = [(offset, offset + len(view))]
    while todo:
        start, end = todo.pop()
        step()
        part = view[start - offset : end - offset]
        try:
            read(part, start)
        except VolumeError as error:
            if not is_of_sector(error):
                raise
            if -(-end // PAGE) - start // PAGE == 1:
                part[:] = bytes(end - start)
                append_range(lost, start, end)
            else:
                middle = (start + end) // 2 // PAGE * PAGE
                middle = middle if middle > start else (start // PAGE + 1) * PAGE
                todo += [(middle, end), (start, middle)]
    return lost
