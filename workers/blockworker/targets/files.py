"""The files of a member on the disk: what opening, publishing and aborting share."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from blockjobs.model.errors import JobFailed
from blockworker.roots import Roots
from blockworker.targets.journal import Member


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


def remove_files(roots: Roots, member: Member) -> None:
    """Remove exactly the member's own files; a staging name that leads to another file is left alone."""
    try:
        directory = roots.open_dir(member.directory)
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return
        raise
    try:
        st = stat_of(directory, member.staging)
        if st is not None and (not member.ino or member.is_file(st)):
            unlink(directory, member.staging)
        for name in (member.digests, member.manifest):
            if name:
                unlink(directory, name)
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_dirs(roots: Roots, made: Iterable[str]) -> None:
    """Remove the directories that are empty, innermost first."""
    for path in sorted(set(made), key=len, reverse=True):
        with suppress(JobFailed, OSError):  # not empty: another job's, or somebody put something there
            parent = roots.open_dir(os.path.dirname(path))
            try:
                os.rmdir(os.path.basename(path), dir_fd=parent)
                os.fsync(parent)
            finally:
                os.close(parent)
