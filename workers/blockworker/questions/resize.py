"""Give an image another size, for a waiting asker: a change of an image outside of any job.

Rule: the permit is asked for last, when only the system call is left. A permit is given once, and never after the asker
gave up: a message that comes twice, or late, changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.volumespec import FileVolume
from blockworker.host.roots import Roots
from blockworker.targets.names import expect_foreign

log = logging.getLogger(__name__)


def resize_image(
    roots: Roots,
    volume: Mapping[str, Any],
    size: int,
    *,
    in_use: Callable[[str, str], bool],
    permitted: Callable[[], bool],
) -> dict[str, Any] | None:
    """Resize an image; return the new size, or an errno and a text; None without a permit.

    ``in_use``: whether a job has this file, or this name in a directory; both by device and inode.
    """
    try:
        parsed = volumespec.parse_volume(volume).volume
        bottom = volumespec.bottom_volume(parsed)
        if volumespec.format_image(parsed) or not isinstance(bottom, FileVolume):
            raise JobFailed(errno.EINVAL, f"a file was expected, a {bottom.driver} has no size of its own")
        return {"size": size} if _resize_if_permitted(roots, bottom.filename, size, in_use, permitted) else None
    except JobFailed as failed:
        return {"errno": failed.errno, "text": failed.text}
    except BadInput as wrong:
        return {"errno": errno.EINVAL, "text": str(wrong)}
    except OSError as error:
        return {"errno": error.errno or errno.EIO, "text": error.strerror or str(error)}


def _resize_if_permitted(
    roots: Roots, path: str, size: int, in_use: Callable[[str, str], bool], permitted: Callable[[], bool]
) -> bool:
    host = roots.config.name
    expect_foreign(path)
    fd = roots.open_image(path)
    try:
        st = os.fstat(fd)
        if not roots.config.allow_overwrite:
            raise JobFailed(errno.EACCES, f"host {host} does not allow overwriting ({path})")
        if st.st_nlink != 1:
            raise JobFailed(errno.EMLINK, f"{path} has {st.st_nlink} hard links: a file with one was expected")
        if in_use(f"{st.st_dev}:{st.st_ino}", _locked_name(roots, path)):
            raise JobFailed(errno.EBUSY, f"{path} is in use by a job that knows it by another name")
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # conflicts with QEMU's locks on its images
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise JobFailed(errno.EBUSY, f"{path} is locked by another program") from None
        if not permitted():
            return False
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)
    log.info("image %s: resized from %d to %d bytes, as somebody asked", path, st.st_size, size)
    return True


def _locked_name(roots: Roots, path: str) -> str:
    """The name in the form locked by a job that writes the file."""
    directory, _, name = path.rpartition("/")
    fd = roots.open_dir(directory or "/")
    try:
        st = os.fstat(fd)
        return f"{st.st_dev}:{st.st_ino}/{name}"
    finally:
        os.close(fd)
