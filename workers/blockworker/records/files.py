"""Files of a member on the disk, for opening, publishing and aborting."""

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
def target_errors_as_failure(path: str) -> Iterator[None]:
    """Turn an OSError into the job's failure."""
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


def unlink_if_exists(directory: int, name: str) -> None:
    """Remove a file, if the file exists."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def look_at(directory: int, name: str) -> Proven | None:
    """Identity and size of the regular file with this name; None for no file, or a file of another kind."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symlink, a socket
            return None
        raise
    try:
        return proof_of_file(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def proof_of_file(fd: int) -> Proven:
    """Identity and size of an open file."""
    return Proven(which=which_file(fd), size=os.fstat(fd).st_size)


def same_file(one: str, other: str) -> bool:
    """Whether two identities (``identity.which_file``) belong to the same file.

    If either file system has no lasting name, the file handles are compared; no handle is given out twice.
    """
    (system, _, handle), (other_system, _, other_handle) = one.rpartition("/"), other.rpartition("/")
    if system.startswith("boot:") or other_system.startswith("boot:"):
        return handle == other_handle
    return one == other


def is_staging_file(member: MemberFiles, fd: int) -> bool:
    """Whether an open file is the staging file that OPEN made, whatever its name."""
    if member.which:
        return same_file(member.which, which_file(fd))
    return _may_be_staging_file(member, os.fstat(fd))


def has_staging_file(member: MemberFiles, directory: int, name: str) -> bool:
    """Whether the file with this name is the staging file that OPEN made."""
    if member.which:
        found = look_at(directory, name)
        return found is not None and same_file(member.which, found.which)
    st = stat_of(directory, name)
    if st is not None and name == member.staging:
        return _may_be_staging_file(member, st)
    return st is not None and member.is_file(st)


def _may_be_staging_file(member: MemberFiles, st: os.stat_result) -> bool:
    """Whether a file with the staging file's name, which only the worker gives, is the staging file of version 1.

    A file system that is mounted again gets another device number.  If the recorded number is still mounted, the file
    lies in another file system.
    """
    return member.is_file(st, remounted=st.st_dev != member.dev and not is_mounted(member.dev))


def known_for_good(directory: int, member: MemberFiles) -> MemberFiles:
    """Add the lasting identity of the staging file to a member of version 1, once the file is found.

    Under the published name, a file of version 1 would be known by its inode number alone.  Other members are returned
    unchanged.
    """
    if member.which or not has_staging_file(member, directory, member.staging):
        return member
    found = look_at(directory, member.staging)
    return member if found is None else replace(member, which=found.which)


def remove_files(roots: Roots, member: MemberFiles) -> None:
    """Remove exactly the member's own files; a staging name that leads to another file stays."""
    try:
        directory = roots.open_dir(member.directory)
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return
        raise
    try:
        if not member.ino or has_staging_file(member, directory, member.staging):
            unlink_if_exists(directory, member.staging)
        for name in (member.digests, member.manifest, unfinished_manifest(member)):
            if name:
                unlink_if_exists(directory, name)
        release_name(directory, member)
        os.fsync(directory)
    finally:
        os.close(directory)


def unfinished_manifest(member: MemberFiles) -> str:
    """The name of a manifest while the manifest is being written."""
    return f"{member.manifest}.new"


def remove_dirs(roots: Roots, made: Iterable[str]) -> list[str]:
    """Remove the empty directories, innermost first; return the directories that stay."""
    return [path for path in sorted(set(made), key=len, reverse=True) if not _remove_dir(roots, path)]


def _remove_dir(roots: Roots, path: str) -> bool:
    """Remove a directory; return whether the directory is gone."""
    try:
        parent = roots.open_dir(os.path.dirname(path))
    except (JobFailed, OSError) as error:
        return error.errno == errno.ENOENT
    try:
        os.rmdir(os.path.basename(path), dir_fd=parent)
        os.fsync(parent)
    except OSError as error:  # not empty: the files of another job or user
        return error.errno == errno.ENOENT
    finally:
        os.close(parent)
    return True
