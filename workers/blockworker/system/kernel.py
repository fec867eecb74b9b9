"""System calls that Python's ``os`` lacks, by ctypes: every function raises ``OSError`` and releases the GIL."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})  # a disk is full, or the user's quota
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
WAIT_BEFORE, WRITE, WAIT_AFTER = 1, 2, 4  # sync_file_range
_FICLONE: Final = 0x40049409
_FICLONERANGE: Final = 0x4020940D
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # flags of an inode: lsattr and chattr
_NO_COPY_ON_WRITE: Final = 0x00800000
_SECTOR_SIZE: Final = 0x1268  # BLKSSZGET
_KEEP_SIZE_PUNCH_HOLE: Final = 0x01 | 0x02
_AT_EMPTY_PATH: Final = 0x1000
_LONGEST_HANDLE: Final = 128  # bytes
_FORCE_SYNC: Final = 0x2000  # AT_STATX_FORCE_SYNC
_STATX_BASIC, _STATX_BTIME = 0x7FF, 0x800
_UNCHANGEABLE: Final = 0x10 | 0x20  # STATX_ATTR_IMMUTABLE, STATX_ATTR_APPEND
_SYS_OPENAT2: Final = 437  # the same number on every architecture
_SYS_CACHESTAT: Final = 451

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_sync_file_range = _libc.sync_file_range
_sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_fallocate = _libc.fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_renameat2 = _libc.renameat2
_renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _CacheRange(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recent"))


def _check_result(result: int, name: str = "") -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name or None)
    return result


def openat2(dirfd: int, name: str, flags: int, resolve: int) -> int:
    """Open ``name`` beneath ``dirfd``, without creating a file; ``resolve``: what the kernel's walk may not meet."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    # EAGAIN: a rename raced with the walk, and the kernel could not tell whether the walk left the directory
    for _ in range(100):
        fd = _syscall(_SYS_OPENAT2, dirfd, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _check_result(fd, name)


def rename_noreplace(dirfd: int, old: str, new: str) -> None:
    """Rename within one directory; ``EEXIST`` if the new name is taken, ``EINVAL`` if not supported."""
    _check_result(_renameat2(dirfd, os.fsencode(old), dirfd, os.fsencode(new), RENAME_NOREPLACE), new)


def rename_exchange(dirfd: int, one: str, other: str) -> None:
    """Exchange the names of two files of one directory; ``EINVAL`` if not supported."""
    _check_result(_renameat2(dirfd, os.fsencode(one), dirfd, os.fsencode(other), RENAME_EXCHANGE), other)


def sync_file_range(fd: int, offset: int, length: int, flags: int) -> None:
    """Start or await writeback of a range. Makes nothing durable: neither metadata nor the disk cache is written."""
    _check_result(_sync_file_range(fd, offset, length, flags))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make a range of a file a hole; ``EOPNOTSUPP`` if the file system has no holes."""
    _check_result(_fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, offset, length))


def pwrite_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write the whole ``data``. A single call of the kernel may write less, above all on an almost full disk."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        n = os.pwrite(fd, memoryview(data)[done:], offset + done)
        if not n:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        done += n


def data_ranges(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a range of a file that are no holes; the whole range if the file system does not know."""
    while start < end:
        try:
            data = min(os.lseek(fd, start, os.SEEK_DATA), end)
            hole = min(os.lseek(fd, data, os.SEEK_HOLE), end) if data < end else end
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data up to the end of the file
                return
            data, hole = start, end
        if data < hole:
            yield data, hole
        start = max(hole, data)


def allocate_range(fd: int, offset: int, length: int) -> None:
    """Reserve the space of a range; ``EOPNOTSUPP`` if not supported."""
    _check_result(_fallocate(fd, 0, offset, length))


def cached_pages(fd: int, offset: int, length: int) -> int:
    """Number of pages of a range in the page cache (Linux 6.5; ``ENOSYS`` before)."""
    span, stat = _CacheRange(offset, length), _CacheStat()
    _check_result(_syscall(_SYS_CACHESTAT, fd, ctypes.byref(span), ctypes.byref(stat), 0))
    return int(stat.cache)


def write_back(fd: int) -> None:
    """Write the dirty pages of an open file to disk and wait: afterwards no process has a page mapped as writable.

    Without dirty pages nothing is done, and nothing waits on a frozen file system.
    """
    span, stat = _CacheRange(0, 0), _CacheStat()  # the length 0: up to the end
    if _syscall(_SYS_CACHESTAT, fd, ctypes.byref(span), ctypes.byref(stat), 0) < 0 or stat.dirty or stat.writeback:
        os.fdatasync(fd)


def clone_file(target: int, source: int) -> None:
    """Make ``target`` share every block of ``source``, at one instant; ``EOPNOTSUPP`` if blocks cannot be shared."""
    fcntl.ioctl(target, _FICLONE, source)


def clone_range(target: int, source: int, length: int) -> None:
    """Make ``target`` share the first ``length`` bytes of ``source``; 0: the whole source."""
    fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, 0, length, 0))


def like_its_source(target: int, source: int) -> None:
    """Give an empty file the copy-on-write flag of its source: Btrfs clones only between files with equal flags."""
    flags = struct.unpack("i", fcntl.ioctl(source, _GET_FLAGS, bytes(4)))[0]
    if flags & _NO_COPY_ON_WRITE:
        fcntl.ioctl(target, _SET_FLAGS, struct.pack("i", flags & _NO_COPY_ON_WRITE))


def sector_size(fd: int) -> int:
    """Bytes of a block device's logical block: direct reads begin and end at a block boundary."""
    return int(struct.unpack("i", fcntl.ioctl(fd, _SECTOR_SIZE, bytes(4)))[0])


def is_range_locked(fd: int, offset: int, length: int = 1) -> bool:
    """Whether another open file description has a record lock of any kind on any of these bytes."""
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, length, 0)
    return bool(struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_OFD_GETLK, lock))[0] != fcntl.F_UNLCK)


def file_handle(fd: int) -> tuple[int, bytes]:
    """Type and bytes of an open file's handle (name_to_handle_at); ``EOPNOTSUPP`` if the file has no handle."""
    room, mount = ctypes.create_string_buffer(8 + _LONGEST_HANDLE), ctypes.c_int()
    struct.pack_into("Ii", room, 0, _LONGEST_HANDLE, 0)
    _check_result(_libc.name_to_handle_at(fd, b"", ctypes.byref(room), ctypes.byref(mount), _AT_EMPTY_PATH))
    length, kind = struct.unpack_from("Ii", room, 0)
    return kind, room.raw[8 : 8 + length]


def _statx_fields(fd: int, wanted: int, flags: int = 0) -> ctypes.Array[ctypes.c_char]:
    """``struct statx`` of an open file, with the fields of a STATX_... mask that the file system knows."""
    room = ctypes.create_string_buffer(256)
    _check_result(_libc.statx(fd, b"", _AT_EMPTY_PATH | flags, wanted, ctypes.byref(room)))
    return room


def birth_time(fd: int) -> int:
    """Birth time of an open file, in nanoseconds of the epoch; 0 if the file system does not know."""
    room = _statx_fields(fd, _STATX_BTIME)
    known = struct.unpack_from("I", room, 0)[0] & _STATX_BTIME
    seconds, nanoseconds = struct.unpack_from("qI", room, 80)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if known else 0


def is_unchangeable(fd: int) -> bool:
    """Whether an open file or directory is known to be immutable or append-only (``chattr +i``, ``+a``).

    No user, root included, can rename or remove an immutable file, or the content of an immutable directory.
    """
    room = _statx_fields(fd, 0)
    return bool(struct.unpack_from("Q", room, 8)[0] & _UNCHANGEABLE)


def lock_shared(fd: int, offset: int, length: int = 1) -> None:
    """Take a shared record lock of the open file description (F_OFD_SETLK), held until the last descriptor is closed.

    Raises:
        BlockingIOError: a process has an exclusive lock on some of the bytes.
    """
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, offset, length, 0))


def unlock_range(fd: int, offset: int, length: int = 1) -> None:
    """Release the record locks of this open file description on these bytes."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, offset, length, 0))


def refresh_from_server(fd: int) -> None:
    """Ask the server of a network file system for the size and the times of an open file, past the local cache."""
    _statx_fields(fd, _STATX_BASIC, _FORCE_SYNC)
