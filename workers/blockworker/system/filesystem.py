"""Kind and abilities of a directory's file system: asked of the kernel, and tried on tiny temporary files."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from blockworker.system import kernel

PREFIX: Final = ".blockjobs-doctor-"
STALE: Final = 3600.0  # seconds after which the next trial removes the files of a killed trial
SIZE: Final = 1 << 20
_FICLONE: Final = 0x40049409

# Magic numbers of statfs(2) -> name, whether only one machine writes to the file system; unknown kinds are named by
# number.
KINDS: Final[dict[int, tuple[str, bool]]] = {
    0xEF53: ("ext4", True), 0x58465342: ("xfs", True), 0x9123683E: ("btrfs", True), 0x01021994: ("tmpfs", True),
    0x2FC12FC1: ("zfs", True), 0xF2F52010: ("f2fs", True), 0x794C7630: ("overlayfs", True),
    0x4D44: ("vfat", True), 0x2011BAB0: ("exfat", True), 0x5346544E: ("ntfs", True), 0x858458F6: ("ramfs", True),
    0xCA451A4E: ("bcachefs", True),
    0x6969: ("nfs", False), 0xFF534D42: ("cifs", False), 0xFE534D42: ("smb", False), 0x65735546: ("fuse", False),
    0x00C36400: ("ceph", False), 0x01021997: ("9p", False), 0x7461636F: ("ocfs2", False), 0x01161970: ("gfs2", False),
    0x0BD00BD0: ("lustre", False), 0x47504653: ("gpfs", False), 0x6A656A63: ("virtiofs", False),
}  # fmt: skip

_libc: Final = ctypes.CDLL(None, use_errno=True)


def filesystem_kind(fd: int) -> tuple[str, bool]:
    """The file system's name, and whether the file system is local."""
    room = (ctypes.c_long * 32)()  # the first word of struct statfs is f_type, on every architecture but s390
    if _libc.fstatfs(fd, ctypes.byref(room)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    magic = room[0] & 0xFFFFFFFF
    return KINDS.get(magic, (f"{magic:#x}", False))


def free_space(fd: int) -> dict[str, int]:
    """Bytes and inodes that an ordinary user may use; ``inodes`` 0: inodes are not limited."""
    st = os.fstatvfs(fd)
    return {
        "size": st.f_blocks * st.f_frsize, "free": st.f_bavail * st.f_frsize,
        "inodes": st.f_files, "free-inodes": st.f_favail,
    }  # fmt: skip


class Broken(Exception):
    """A call that succeeds without the effect of the call."""


def _expect_working(done: bool, wrong: str) -> None:
    if not done:
        raise Broken(wrong)


def try_abilities(directory: int) -> dict[str, str]:
    """The result of every trial in ``directory`` (a descriptor): "" if the ability exists, else the reason why not."""
    with suppress(OSError):
        _remove_stale_files(directory)
    return {name: _try_ability(trial, directory) for name, trial in TRIALS.items()}


def _try_ability(trial: Callable[[int], None], directory: int) -> str:
    try:
        trial(directory)
    except OSError as error:
        return error.strerror or os.strerror(error.errno or errno.EIO)
    except Broken as wrong:
        return str(wrong)
    return ""


@contextmanager
def _temporary_file(directory: int, content: bytes = b"") -> Iterator[tuple[int, str]]:
    """A temporary file with a name."""
    name = f"{PREFIX}{secrets.token_hex(8)}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        kernel.pwrite_all(fd, content, 0)
        yield fd, name
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _remove_stale_files(directory: int) -> None:
    for name in os.listdir(directory):
        if name.startswith(PREFIX):
            with suppress(FileNotFoundError):
                if time.time() - os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime > STALE:
                    os.unlink(name, dir_fd=directory)


# --- the trials: a trial returns if the ability exists, else it raises -------------------------------------


def _try_write(directory: int) -> None:
    with _temporary_file(directory, b"x") as (fd, _):
        os.fsync(fd)


def _try_unnamed_file(directory: int) -> None:
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory))


def _try_rename(directory: int) -> None:
    with _temporary_file(directory) as (_, old), _temporary_file(directory) as (_, taken):
        try:
            kernel.rename_noreplace(directory, old, taken)
        except FileExistsError:
            return
        raise Broken("a file was replaced")


def _try_reflink(directory: int) -> None:
    with _temporary_file(directory, bytes(SIZE)) as (source, _), _temporary_file(directory) as (target, _):
        fcntl.ioctl(target, _FICLONE, source)
        _expect_working(os.fstat(target).st_size == SIZE, "the copy is shorter")


def _try_punch_hole(directory: int) -> None:
    with _temporary_file(directory, b"x" * SIZE) as (fd, _):
        os.fsync(fd)
        kernel.punch_hole(fd, 0, SIZE)
        _expect_working(os.pread(fd, 1, 0) == b"\0", "the hole holds data")


def _try_allocate(directory: int) -> None:
    with _temporary_file(directory) as (fd, _):
        kernel.allocate_range(fd, 0, SIZE)


def _try_seek_data(directory: int) -> None:
    with _temporary_file(directory) as (fd, _):
        os.ftruncate(fd, 16 * SIZE)
        kernel.pwrite_all(fd, b"x", 8 * SIZE)
        _expect_working(os.lseek(fd, 0, os.SEEK_DATA) > 0, "holes are reported as data")


def _try_flock(directory: int) -> None:
    with _temporary_file(directory) as (fd, name):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(other)
        raise Broken("two owners at once")


TRIALS: Final[dict[str, Callable[[int], Any]]] = {
    "write": _try_write,
    "fsync-directory": os.fsync,
    "flock": _try_flock,
    "rename-noreplace": _try_rename,
    "reflink": _try_reflink,
    "punch-hole": _try_punch_hole,
    "fallocate": _try_allocate,
    "seek-data": _try_seek_data,
    "tmpfile": _try_unnamed_file,
}
