"""Whether somebody writes to a source right now: QEMU's image lock, and devices that are mounted or held exclusively.

That a file is merely open says nothing.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import DeviceVolume, FileVolume, Volume
from blockworker import kernel
from blockworker.roots import Roots

# QEMU, block/file-posix.c: whoever has an image open holds a lock on byte 100 + n for each permission n it uses.
_PERMISSIONS: Final = 100
_WRITE, _WRITE_UNCHANGED, _RESIZE = 1, 2, 3
_TRIES, _REST = 3, 0.02  # another job of ours may be at this very question


def expect_still(volume: Volume, roots: Roots, *, live: bool = False) -> None:
    """Refuse a source that is read as it is while somebody writes to it: old and new would be mixed.

    ``live``: that is what is wanted.  Not so of an image of a format: its tables would be mixed as well.

    Raises:
        JobFailed: it is in use.
    """
    image = volumespec.formatted(volume) is not None
    if live and not image:
        return
    match volumespec.bottom(volume):
        case FileVolume(filename):
            fd, device = roots.open_source(filename), False
        case DeviceVolume(filename):
            fd, device = roots.open_device(filename), True
        case _:
            return
    try:
        who = _user(fd, device=device)
    finally:
        os.close(fd)
    if who:
        wanted = "a snapshot was expected" if image else "a snapshot was expected, or 'live: true'"
        raise JobFailed(errno.EBUSY, f"source {filename} is in use ({who}): {wanted}")


def _user(fd: int, *, device: bool) -> str:
    if any(kernel.locked(fd, _PERMISSIONS + n) for n in (_WRITE, _WRITE_UNCHANGED, _RESIZE)):
        return "QEMU writes to it"
    if device and not _free(fd):
        return "it is mounted, or somebody has it for himself"
    return ""


def _free(fd: int) -> bool:
    for left in reversed(range(_TRIES)):
        try:
            os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                return True  # not to be known
        if left:
            time.sleep(_REST)
    return False
