"""QEMU's image locks: a process records the used permissions on an image as record locks on single bytes of the file.

Facts: QEMU's ``block/file-posix.c``. A process with an open image holds a shared lock on byte 100 + n for every used
permission n, and on byte 200 + n for every permission denied to other processes. The locks belong to an open file
description (OFD): they end with the last descriptor, and thereby with the process. The locks bind only processes that
check them.
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
_EVERY: Final = _REFUSED + _COUNT - _USED  # bytes from the first lock byte to the last
_CHANGES: Final = (WRITE, WRITE_UNCHANGED, RESIZE)


def is_written(fd: int) -> bool:
    """Whether a process has the right to change the image: QEMU has the image open for writing."""
    return any(kernel.is_range_locked(fd, _USED + permission) for permission in _CHANGES)


def is_open(fd: int) -> bool:
    """Whether QEMU has the image open in any way, or a job of ours has the image locked as QEMU does."""
    return kernel.is_range_locked(fd, _USED, _COUNT) or kernel.is_range_locked(fd, _REFUSED, _COUNT)


def is_kept(fd: int) -> bool:
    """Whether a process has the image open and does not share everything, as a guest does unless its disk is shared."""
    return kernel.is_range_locked(fd, _REFUSED, _COUNT)


def write_a_part(fd: int) -> None:
    """Lock a device as a writer of a part, shared with writers of other parts: no guest starts on the device.

    A guest does not share writing. A server of QEMU shares writing, but not changes of the size.
    """
    for permission in (WRITE, RESIZE):
        with suppress(OSError):
            kernel.lock_shared(fd, _USED + permission)


def lock_as_reader(fd: int) -> None:
    """Lock an image as a reader that shares everything: a process with an exclusive need sees the lock.

    The lock refuses no other process. If the image is locked exclusively, or the file system has no locks, the image is
    read without a lock.
    """
    with suppress(OSError):
        kernel.lock_shared(fd, _USED + CONSISTENT_READ)


def lock_as_sole_writer(fd: int, what: str) -> None:
    """Lock an image as a writer that shares nothing, until the descriptor is closed: QEMU does not start on the image.

    Raises:
        JobFailed: QEMU has the image open (EBUSY), or a job of ours reads the image.
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
        release_image_locks(fd)
        raise JobFailed(errno.EBUSY, f"{what} is in use: QEMU has it open")


def expect_closed(fd: int, what: str) -> None:
    """Refuse an image opened by QEMU. Raises JobFailed (EBUSY)."""
    if is_open(fd):
        raise JobFailed(errno.EBUSY, f"{what} is in use: QEMU has it open")


def release_image_locks(fd: int) -> None:
    """Release all locks of this descriptor; a close is not enough while a child has a copy."""
    with suppress(OSError):
        kernel.unlock_range(fd, _USED, _EVERY)


def close_locked_image(fd: int) -> None:
    """Release the locks, and close the descriptor."""
    release_image_locks(fd)
    os.close(fd)
