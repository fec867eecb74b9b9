"""The files of a member on the disk: what opening, publishing and aborting share."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Roots
from blockworker.records.entries import MemberFiles, Proven
from blockworker.records.reserved import release_name
from blockworker.system.identity import is_mounted, which_file


@contextmanager
def failing(path: str) -> Iterator[None]:
    """Turn what the kernel refuses into the job's failure."""
    try:
        yield
    except OSError as error:
        code = error.errno or errno.EIO
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise JobFailed(code, f"target {path}{where}: {os.strerror(code)}") from error


def stat_of(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def unlink(directory: int, name: str) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def look_at(directory: int, name: str) -> Proven | None:
    """Which file has this name, and how large it is; None where it is none, or no regular one."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symlink, a socket
            return None
        raise
    try:
        return seen(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def seen(fd: int) -> Proven:
    """Which file is open, and how large it is."""
    return Proven(which=which_file(fd), size=os.fstat(fd).st_size)


def same_file(one: str, other: str) -> bool:
    """Whether two names (``identity.which_file``) are of one file.

    Where a file system is known by nothing that lasts, the handles are compared, which are never given out twice.
    """
    (system, _, handle), (other_system, _, other_handle) = one.rpartition("/"), other.rpartition("/")
    if system.startswith("boot:") or other_system.startswith("boot:"):
        return handle == other_handle
    return one == other


def is_staging_file(member: MemberFiles, fd: int) -> bool:
    """Whether an open file is the staging file that OPEN made, under whatever name."""
    if member.which:
        return same_file(member.which, which_file(fd))
    return _may_be_staging_file(member, os.fstat(fd))


def has_staging_file(member: MemberFiles, directory: int, name: str) -> bool:
    """Whether this name is the one of the staging file that OPEN made."""
    if member.which:
        found = look_at(directory, name)
        return found is not None and same_file(member.which, found.which)
    st = stat_of(directory, name)
    if st is not None and name == member.staging:
        return _may_be_staging_file(member, st)
    return st is not None and member.is_file(st)


def _may_be_staging_file(member: MemberFiles, st: os.stat_result) -> bool:
    """The same by the numbers of version 1, of a file that has the staging file's own name, which nobody else gives.

    A file system that is mounted again gets another number.  Where the recorded one is mounted beside it, this is
    another file system.
    """
    return member.is_file(st, remounted=st.st_dev != member.dev and not is_mounted(member.dev))


def known_for_good(directory: int, member: MemberFiles) -> MemberFiles:
    """A member of version 1 with the name of its staging file that lasts, once the file is found; any other as it is.

    Under the name that it is published by, a file of version 1 would be known by its inode number alone.
    """
    if member.which or not has_staging_file(member, directory, member.staging):
        return member
    found = look_at(directory, member.staging)
    return member if found is None else replace(member, which=found.which)


def remove_files(roots: Roots, member: MemberFiles) -> None:
    """Remove exactly the member's own files; a staging name that leads to another file is left alone."""
    try:
        directory = roots.open_dir(member.directory)
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return
        raise
    try:
        if not member.ino or has_staging_file(member, directory, member.staging):
            unlink(directory, member.staging)
        for name in (member.digests, member.manifest, unfinished(member)):
            if name:
                unlink(directory, name)
        release_name(directory, member)
        os.fsync(directory)
    finally:
        os.close(directory)


def unfinished(member: MemberFiles) -> str:
    """The name of a manifest until all of it is on the disk."""
    return f"{member.manifest}.new"


def remove_dirs(roots: Roots, made: Iterable[str]) -> list[str]:
    """Remove the directories that are empty, innermost first; those that stay."""
    return [path for path in sorted(set(made), key=len, reverse=True) if not _remove_dir(roots, path)]


def _remove_dir(roots: Roots, path: str) -> bool:
    """Whether a directory is gone."""
    try:
        parent = roots.open_dir(os.path.dirname(path))
    except (JobFailed, OSError) as error:
        return error.errno == errno.ENOENT
    try:
        os.rmdir(os.path.basename(path), dir_fd=parent)
        os.fsync(parent)
    except OSError as error:  # not empty: another job's, or somebody put something there
        return error.errno == errno.ENOENT
    finally:
        os.close(parent)
    return True
