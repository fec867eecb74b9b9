"""The file that a target replaces: not open in QEMU, under no overlay, and locked against QEMU during a copy.

Locks by step: every attempt holds QEMU's image locks on the file, as a writer that shares nothing, until the attempt
ends; OPEN and PREPARE test the locks and refuse; between OPEN and PREPARE, and between PREPARE and COMMIT, no lock is
held, because locks end with their process.  COMMIT takes the locks for the rename.  If QEMU has opened the file since
PREPARE, the member is committed and not published: only a person can end the QEMU process.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Roots
from blockworker.records.entries import MemberFiles, Replaced
from blockworker.records.files import look_at, same_file, stat_of
from blockworker.system import image_locks, kernel, sysfs
from blockworker.system.identity import which_file
from blockworker.targets.chains import lying_on
from blockworker.targets.names import SUFFIXES

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def expect_replaceable(directory: int, path: str) -> Replaced | None:
    """Refuse to replace a file in use, a file that an image lies on, or an unchangeable file; return its identity.

    A file is in use if QEMU has the file open or a loop device lies in the file; an image counts if it lies in the same
    directory; digests and manifest beside the file have to be changeable too.  None: there is no file.  ``directory``:
    the open directory of the file.

    Raises:
        JobFailed: the file is needed (EBUSY), or cannot be replaced (EPERM).
    """
    name = os.path.basename(path)
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        expect_changeable(fd, f"target {path}")
        image_locks.expect_closed(fd, f"target {path}")
        expect_no_loop(fd, f"target {path}")
        st = os.fstat(fd)
        seen = Replaced(st.st_dev, st.st_ino, which_file(fd))
    finally:
        os.close(fd)
    for suffix in SUFFIXES[1:]:
        _expect_changeable_beside(directory, name + suffix, path + suffix)
    if above := lying_on(directory, path):
        raise JobFailed(errno.EBUSY, f"target {path} is needed: {above} in the same directory lies on it")
    return seen


def expect_changeable(fd: int, what: str) -> None:
    """Refuse an immutable or append-only file or directory, because a rename would fail.  Raises JobFailed (EPERM)."""
    if kernel.is_unchangeable(fd):
        text = f"{what} is immutable or append-only: one was expected that can be changed (`lsattr` shows i or a)"
        raise JobFailed(errno.EPERM, text)


def _expect_changeable_beside(directory: int, name: str, path: str) -> None:
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # no file: publishing reports the obstacle
            return
        raise
    try:
        expect_changeable(fd, path)
    finally:
        os.close(fd)


def expect_no_loop(fd: int, what: str) -> None:
    """Refuse a file under a loop device, which may be mounted.  Raises JobFailed (EBUSY)."""
    if loop := next(sysfs.loops_on(os.fstat(fd)), 0):
        raise JobFailed(errno.EBUSY, f"{what} is in use: {sysfs.node_of(loop) or 'a loop device'} lies in it")


def is_replaced_file(directory: int, member: MemberFiles) -> bool:
    """Whether the file with the target's name is exactly the file that OPEN saw and accepted for replacement.

    A file system reuses an inode number once the number's file is removed.  The numbers are compared only if the
    journal has no better identity: a member opened by an earlier release.  ``directory``: the target's open directory.
    """
    if (seen := member.replaces) is None:
        return False
    if seen.which:
        found = look_at(directory, member.name)
        return found is not None and same_file(found.which, seen.which)
    st = stat_of(directory, member.name)
    return st is not None and stat.S_ISREG(st.st_mode) and st.st_ino == seen.ino


def expect_still_replaceable(roots: Roots, member: MemberFiles) -> None:
    """Repeat ``expect_replaceable`` for the file that a member will replace, if the member replaces a file."""
    if member.replaces is not None:
        directory = roots.open_dir(member.directory)
        try:
            expect_replaceable(directory, member.target)
        finally:
            os.close(directory)


@contextmanager
def locked_against_qemu(directory: int, path: str) -> Iterator[None]:
    """Keep QEMU from a file during the context; a missing file needs no lock.

    Raises:
        JobFailed: QEMU has the file open (EBUSY).
    """
    try:
        fd = os.open(os.path.basename(path), _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        yield
        return
    try:
        image_locks.lock_as_sole_writer(fd, f"target {path}")
        yield
    finally:
        image_locks.close_locked_image(fd)


@contextmanager
def locked_replaced_file(roots: Roots, member: MemberFiles) -> Iterator[None]:
    """Keep QEMU from the file that a member will replace, if the member replaces a file.  Raises JobFailed (EBUSY)."""
    if member.replaces is None:
        yield
        return
    directory = roots.open_dir(member.directory)
    try:
        with locked_against_qemu(directory, member.target):
            yield
    finally:
        os.close(directory)
