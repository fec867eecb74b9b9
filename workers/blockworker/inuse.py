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


def expect_still(volume: Volume, roots: Roots, *, live: bool = False, cut: bool = False) -> None:
    """Refuse a source while somebody writes to a file that is read as it is: old and new would be mixed.

    ``live``: that is what is wanted.  ``cut``: the top file is read as it was at one instant.  Neither counts for the
    tables of an image of a format, nor for the layers below it, which stand still as long as anybody reads them.

    Raises:
        JobFailed: a file or device of the source is in use.
    """
    image = volumespec.formatted(volume) is not None
    for number, store in enumerate(volumespec.stores(volume)):
        if number:
            text = f"layer {store.filename} of source {volumespec.label(volume)}"
            _expect_free(store, roots, text, "a layer that nobody writes to was expected")
        elif not cut and (image or not live):
            wanted = "a snapshot was expected" if image else "a snapshot was expected, or 'live: true'"
            _expect_free(store, roots, f"source {store.filename}", wanted)


def _expect_free(store: FileVolume | DeviceVolume, roots: Roots, called: str, wanted: str) -> None:
    device = isinstance(store, DeviceVolume)
    fd = roots.open_device(store.filename) if device else roots.open_source(store.filename)
    try:
        who = _user(fd, device=device)
    finally:
        os.close(fd)
    if who:
        raise JobFailed(errno.EBUSY, f"{called} is in use ({who}): {wanted}")


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
