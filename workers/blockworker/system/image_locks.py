"""QEMU's image locks: the permissions that a process uses on an image are record locks on single bytes of its file.

Facts: QEMU's ``block/file-posix.c``. A process that has an image open holds a shared lock on byte 100 + n for every
permission n that it uses, and on byte 200 + n for every permission that it denies to other processes. The locks belong
to an open file description (OFD): they end with its last descriptor, and thereby with the process. The locks bind only
processes that check them.
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
    """Whether a process has the right to change the image: QEMU has the image open for writing."""
    return any(kernel.locked(fd, _USED + permission) for permission in _CHANGES)


def is_open(fd: int) -> bool:
    """Whether QEMU has the image open in any way, or a job of ours has the image locked as QEMU does."""
    return kernel.locked(fd, _USED, _COUNT) or kernel.locked(fd, _REFUSED, _COUNT)


def is_kept(fd: int) -> bool:
    """Whether a process has the image open and does not share everything: a guest that shares no disk does so."""
    return kernel.locked(fd, _REFUSED, _COUNT)


def write_a_part(fd: int) -> None:
    """Lock a device as a writer of a part, who shares the device with writers of other parts: no guest starts on it.

    A guest does not share writing. A server of QEMU shares writing, but not changes of the size.
    """
    for permission in (WRITE, RESIZE):
        with suppress(OSError):
            kernel.lock_shared(fd, _USED + permission)


def share(fd: int) -> None:
    """Lock an image as a reader that shares everything: a process that wants the image alone sees the lock.

    The lock refuses no other process. If a process has the image alone, or the file system has no locks, the image is
    read without a lock.
    """
    with suppress(OSError):
        kernel.lock_shared(fd, _USED + CONSISTENT_READ)


def own(fd: int, what: str) -> None:
    """Lock an image as a writer that shares nothing, until the descriptor is closed: QEMU does not start on the image.

    Raises:
        JobFailed: QEMU has the image open (EBUSY), or a job of ours reads it.
    """
    try:
        kernel.lock_shared(fd, _USED, _COUNT)
        kernel.lock_shared(fd, _REFUSED, _COUNT)
        taken = is_open(fd)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            return  # a file system without locks: QEMU takes no locks either
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        taken = True
    if taken:
        free(fd)
        raise JobFailed(errno.EBUSY, f"{what} is in use: QEMU has it open")


def expect_closed(fd: int, what: str) -> None:
    """Refuse an image that QEMU has open. Raises JobFailed (EBUSY)."""
    if is_open(fd):
        raise JobFailed(errno.EBUSY, f"{what} is in use: QEMU has it open")


def free(fd: int) -> None:
    """Release all locks of this descriptor; closing releases them too, unless a child has a copy of the descriptor."""
    with suppress(OSError):
        kernel.unlock(fd, _USED, _EVERY)


def close(fd: int) -> None:
    """Release the locks, and close the descriptor."""
    free(fd)
    os.close(fd)
