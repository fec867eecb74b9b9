"""QEMU's image locks: what somebody may do with an image is written on single bytes of its file, as record locks.

Facts: QEMU's ``block/file-posix.c``.  Whoever has an image open holds a shared lock on byte 100 + n for each permission
n that is used, and on byte 200 + n for each permission that nobody else may use.  The locks are those of an open file
description (OFD): they end with its last descriptor, and thereby with the process.  They only bind those who look.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from blockjobs.model.errors import JobFailed
from blockworker.system import kernel

CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE = range(4)
_USED, _REFUSED, _COUNT = 100, 200, 4
_EVERY: Final = _REFUSED + _COUNT - _USED  # bytes from the first lock byte to the last one
_CHANGES: Final = (WRITE, WRITE_UNCHANGED, RESIZE)


def is_written(fd: int) -> bool:
    """Whether somebody has the right to change the image: QEMU has it open for writing."""
    return any(kernel.locked(fd, _USED + permission) for permission in _CHANGES)


def is_open(fd: int) -> bool:
    """Whether QEMU has the image open in any way, or a job of ours has it locked as QEMU does."""
    return kernel.locked(fd, _USED, _COUNT) or kernel.locked(fd, _REFUSED, _COUNT)


def is_kept(fd: int) -> bool:
    """Whether somebody has the image open and does not share all of it: a guest does so, unless it shares its disk."""
    return kernel.locked(fd, _REFUSED, _COUNT)


def write_a_part(fd: int) -> None:
    """Lock a device as a writer of a part of it, who shares it with writers of other parts: no guest starts on it.

    A guest does not share writing; a server of QEMU's shares that, but not that somebody changes the size.
    """
    for permission in (WRITE, RESIZE):
        with suppress(OSError):
            kernel.lock_shared(fd, _USED + permission)


def share(fd: int) -> None:
    """Lock an image as a reader that shares everything: whoever wants the image alone sees it, nobody else is refused.

    Where somebody has the image alone, or the file system has no locks, the image is read without a lock.
    """
    with suppress(OSError):
        kernel.lock_shared(fd, _USED + CONSISTENT_READ)


def own(fd: int, what: str) -> None:
    """Lock an image as a writer that shares nothing, until the descriptor is closed: QEMU does not start on it.

    Raises:
        JobFailed: QEMU has it open (EBUSY), or a job of ours reads it.
    """
    try:
        kernel.lock_shared(fd, _USED, _COUNT)
        kernel.lock_shared(fd, _REFUSED, _COUNT)
        taken = is_open(fd)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            return  # a file system without locks: QEMU does not lock there, either
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        taken = True
    if taken:
        free(fd)
        raise JobFailed(errno.EBUSY, f"{what} is in use: QEMU has it open")


def expect_closed(fd: int, what: str) -> None:
    """Refuse an image that QEMU has open.  Raises JobFailed (EBUSY)."""
    if is_open(fd):
        raise JobFailed(errno.EBUSY, f"{what} is in use: QEMU has it open")


def free(fd: int) -> None:
    """Give up all locks of this descriptor; closing it does the same, unless a child has a copy of it."""
    with suppress(OSError):
        kernel.unlock(fd, _USED, _EVERY)


def close(fd: int) -> None:
    """Give up the locks, and close."""
    free(fd)
    os.close(fd)
