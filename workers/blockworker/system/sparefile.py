"""Small files that are replaced whole, and whose next version has its room on the disk before it is needed.

Beside ``NAME`` lies ``.NAME.new``, the spare, as large as ``NAME``.  A new version is written into the spare, made
durable, and takes the name: the two files exchange their names, so that the old version is the next spare.  Nothing is
allocated for that: a decision can be noted on a full disk.  Both files end with blanks, which no reader of JSON minds.

The room is not kept where a file system never writes in place (Btrfs, ZFS) and where it cannot exchange names (NFS).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Final

from blockworker.system import kernel
from blockworker.system.together import Durably, do_alone

_BLOCK: Final = 4096  # bytes: what file systems allocate at once
_SLACK: Final = 256  # bytes by which a version may grow, and still has its room
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def spare_name(name: str) -> str:
    return f".{name}.new"


def replace_file(folder: int, name: str, text: bytes) -> None:
    """``replacing`` one file, to its end."""
    do_alone(replacing(folder, {name: text}))


def replacing(folder: int, texts: Mapping[str, bytes]) -> Durably[None]:
    """Give files of the folder a new content, by their names, each atomically and durably.

    Where this ends without an error, another version of up to 256 more bytes has its room.

    Raises:
        OSError: with one of ``kernel.NO_SPACE`` where a new version is larger than the last one and the disk is full.
    """
    rooms = {}
    with ExitStack() as opened:
        files = []
        for name, text in texts.items():
            files.append(fd := os.open(spare_name(name), _FLAGS | os.O_CREAT, 0o600, dir_fd=folder))
            opened.callback(os.close, fd)
            there = os.fstat(fd).st_size
            rooms[name] = room = max(_rounded(len(text) + _SLACK), there)
            if there < room:  # XFS may refuse on a full disk to allocate what is allocated already
                _allocate(fd, room)
            _write_whole(fd, text.ljust(room))
        yield files
    full: OSError | None = None
    for name, room in rooms.items():
        spare = spare_name(name)
        if not _exchange(folder, spare, name):
            os.rename(spare, name, src_dir_fd=folder, dst_dir_fd=folder)
        fd = os.open(spare, _FLAGS | os.O_CREAT, 0o600, dir_fd=folder)
        try:
            if os.fstat(fd).st_size < room:
                _allocate(fd, room)
        except OSError as error:  # the new version is there, and has to stay
            full = error
        finally:
            os.close(fd)
    yield (folder,)
    if full is not None:
        raise full


def read_text(folder: int, name: str, most: int = -1) -> bytes | None:
    """What a file of the folder holds, at most so many bytes of it (-1: all); None while there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(most)


def remove_file(folder: int, name: str) -> bool:
    """Remove a file and its spare; whether the file was there.  The folder's sync is owed."""
    found = False
    for each in (spare_name(name), name):
        with suppress(FileNotFoundError):
            os.unlink(each, dir_fd=folder)
            found = each == name
    return found


def _rounded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _allocate(fd: int, size: int) -> None:
    try:
        kernel.allocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        _write_whole(fd, bytes(size))


def _write_whole(fd: int, content: bytes) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(fd, content[done:], done)


def _exchange(folder: int, spare: str, name: str) -> bool:
    try:
        kernel.rename_exchange(folder, spare, name)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENOSYS):
            raise
        return False
    return True
