"""The folder of the journals beneath a root, and its locks.  Unused folders and locks are removed, and made again."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from blockjobs.model.errors import BlockjobsError, JobFailed
from blockworker.host import state
from blockworker.host.roots import Root, Roots

FOLDER: Final = state.FOLDER
SETTLED: Final = "settled"  # subfolder of tombstones
MADE_DIRS: Final = "directories"  # subfolder with a note for each directory that was made for a target


class LockBusy(BlockjobsError):
    """Another process works on this transaction beneath this root: the step returns quietly and is called again."""


def folder_of(root: Root) -> str:
    return f"{root.path.rstrip('/')}/{FOLDER}"


def take_lock(roots: Roots, root: Root, transaction: str, patience: float) -> tuple[int, int]:
    """Take the flock of the transaction's lock file; return descriptors of the folder and of the lock file.

    The locked file is still the file with the lock's name: a holder may have removed an earlier file.
    """
    name, deadline = f"{transaction}.lock", time.monotonic() + patience
    while True:
        _make_folder(roots, root)
        folder = lock = -1
        try:
            folder = roots.open_dir(folder_of(root))
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                held, folder, lock = (folder, lock), -1, -1
                return held
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockBusy(f"transaction '{transaction}' is being worked on beneath {root.path}") from None
            time.sleep(0.005)
        except (FileNotFoundError, JobFailed) as error:
            # Another process found the folder empty and removed the folder before this process used it.
            if error.errno != errno.ENOENT or time.monotonic() >= deadline + 1:
                raise
        finally:
            _close_all(folder, lock)


def release_folder_lock(lock: int) -> None:
    """Unlock and close.  Closing alone would leave the lock with a child that was forked meanwhile."""
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


@contextmanager
def opened_tombstones(folder: int, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder of tombstones; FileNotFoundError without a folder, unless ``make`` is true."""
    fd = -1
    while fd < 0:
        try:
            fd = os.open(SETTLED, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(SETTLED, 0o700, dir_fd=folder)
                os.fsync(folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _close_all(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _make_folder(roots: Roots, root: Root) -> None:
    top = roots.open_dir(root.path, what="root")
    try:
        with suppress(FileExistsError):
            os.mkdir(FOLDER, 0o700, dir_fd=top)
            os.fsync(top)
    except OSError as error:
        code = error.errno or errno.EIO
        raise JobFailed(code, f"journal folder {folder_of(root)}: {os.strerror(code)}") from None
    finally:
        os.close(top)


def remove_folder(roots: Roots, root: Root) -> None:
    """Remove the folder if the folder is empty."""
    with suppress(JobFailed, OSError):
        top = roots.open_dir(root.path)
        try:
            for name in (SETTLED, MADE_DIRS):
                with suppress(FileNotFoundError):
                    os.rmdir(f"{FOLDER}/{name}", dir_fd=top)
            os.rmdir(FOLDER, dir_fd=top)
            os.fsync(top)
        finally:
            os.close(top)
