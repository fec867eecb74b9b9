"""The file that already has a target's name: whether a job may replace the file, and the file's contents."""

from __future__ import annotations

import errno
import os
import stat

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.restores import TYPE as RESTORE
from blockjobs.model.volumespec import Volume
from blockworker.host.roots import Roots, file_kind
from blockworker.records.entries import Replaced
from blockworker.records.files import stat_of
from blockworker.targets.images import Contents, look_into
from blockworker.targets.names import SUFFIXES
from blockworker.targets.replaced import expect_changeable, expect_replaceable


def expect_free_or_replaceable(roots: Roots, spec: JobSpec, path: str) -> Replaced | None:
    """Refuse a target that exists, unless the job may replace the target; return the file to replace, or None.

    Raises:
        JobFailed: the target exists and must not be replaced (EEXIST), is the source or a layer of the source (EINVAL),
            or is in use (EBUSY); or no file in the target's directory can be changed (EPERM).
    """
    try:
        directory = roots.open_dir(os.path.dirname(path))
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return None  # the directory will be made
        raise
    try:
        expect_changeable(directory, f"target directory {os.path.dirname(path)}")
        name = os.path.basename(path)
        st, seen = stat_of(directory, name), None
        if st is not None and stat.S_ISREG(st.st_mode) and _may_overwrite(roots, spec):
            seen = expect_replaceable(directory, path)
        if st is None or _may_overwrite(roots, spec):
            for suffix in SUFFIXES[1:]:
                _expect_free_beside(directory, path, suffix, replaceable=_may_overwrite(roots, spec))
        if st is None:
            return None
    finally:
        os.close(directory)
    layer = _places_in_source(roots, spec).get((st.st_dev, st.st_ino), -1)
    if layer == 0:
        raise JobFailed(errno.EINVAL, f"target {path} is the source itself, or a hard link of it")
    if layer > 0:
        raise JobFailed(errno.EINVAL, f"target {path} is a layer of source {spec.source.text}, which lies on it")
    if not stat.S_ISREG(st.st_mode):
        raise JobFailed(errno.EEXIST, f"target {path} exists already and is {file_kind(st)}")
    if not _may_overwrite(roots, spec):
        why = f"host {roots.config.name} does not allow overwriting" if spec.overwrite else "'overwrite' was not asked"
        raise JobFailed(errno.EEXIST, f"target {path} exists already and {why}")
    if st.st_nlink != 1:
        raise JobFailed(errno.EEXIST, f"target {path} has {st.st_nlink} hard links: a file with one was expected")
    return seen


def _expect_free_beside(directory: int, path: str, suffix: str, *, replaceable: bool) -> None:
    """Refuse a target whose digests or manifest would find their name taken.  Raises JobFailed."""
    found = stat_of(directory, os.path.basename(path) + suffix)
    if found is None or (replaceable and stat.S_ISREG(found.st_mode)):
        return
    what = f" and is {file_kind(found)}" if replaceable else ""
    raise JobFailed(errno.EEXIST, f"{path}{suffix} exists already{what}: it would belong to target {path}")


def _may_overwrite(roots: Roots, spec: JobSpec) -> bool:
    """Whether both the job and the host allow a file to be replaced."""
    return spec.overwrite and roots.config.allow_overwrite


def _places_in_source(roots: Roots, spec: JobSpec) -> dict[tuple[int, int], int]:
    """Map (device, inode) of each file of the source to the number of layers above; {} on another host."""
    found: dict[tuple[int, int], int] = {}
    for number, store in enumerate(volumespec.files_and_devices(spec.source.volume)):
        if not isinstance(store, volumespec.FileVolume) or spec.source.host != spec.target.host:
            continue
        fd = (roots.open_published if spec.type == RESTORE else roots.open_source)(store.filename)
        try:
            st = os.fstat(fd)
            found.setdefault((st.st_dev, st.st_ino), number)
        finally:
            os.close(fd)
    return found


def open_existing(roots: Roots, path: str) -> int | None:
    """Open the file that a target would replace for reading; None without a file.

    Raises JobFailed, OSError.
    """
    try:
        directory = roots.open_dir(os.path.dirname(path), what="target directory")
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return None
        raise
    try:
        return os.open(
            os.path.basename(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except FileNotFoundError:
        return None
    finally:
        os.close(directory)


def existing_contents(roots: Roots, volume: Volume) -> Contents | None:
    """The contents of a target's existing file, by its format; None without a file.  Raises JobFailed, OSError."""
    fd = open_existing(roots, volumespec.volume_label(volume))
    if fd is None:
        return None
    try:
        image = volumespec.format_image(volume)
        return Contents(os.fstat(fd).st_size) if image is None else look_into(fd, image, roots.cage)
    finally:
        os.close(fd)
