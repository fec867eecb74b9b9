"""Small files that are replaced as a whole; the disk space of the next version is allocated in advance.

Beside ``NAME`` lies ``.NAME.new``, the spare, as large as ``NAME``. A new version is written into the spare, made
durable, and takes the name: the two files exchange their names, and the old version becomes the next spare. The
exchange allocates nothing, and a decision can be noted on a full disk. Both files end with blanks, which JSON readers
ignore.

The space is not kept if the file system never writes in place (Btrfs, ZFS) or cannot exchange names (NFS).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Final

from blockworker.system import kernel
from blockworker.system.together import Durably, do_alone

_BLOCK: Final = 4096  # bytes: the unit in which file systems allocate
_SLACK: Final = 256  # bytes by which a version may grow and still fit into the spare
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def spare_name(name: str) -> str:
    return f".{name}.new"


def replace_file(folder: int, name: str, text: bytes) -> None:
    """Replace one file with ``replacing_files``, run to its end."""
    do_alone(replacing_files(folder, {name: text}))


def replacing_files(folder: int, texts: Mapping[str, bytes]) -> Durably[None]:
    """Replace the content of files of the folder, by name, each atomically and durably.

    After an end without an error, the space for another version of up to 256 more bytes is allocated.

    Raises:
        OSError: with a code of ``kernel.NO_SPACE`` if a new version is larger than the last one and the disk is full.
    """
    rooms = {}
    with ExitStack() as opened:
        files = []
        for name, text in texts.items():
            files.append(fd := os.open(spare_name(name), _FLAGS | os.O_CREAT, 0o600, dir_fd=folder))
            opened.callback(os.close, fd)
            there = os.fstat(fd).st_size
            rooms[name] = room = max(_rounded_to_block(len(text) + _SLACK), there)
            if there < room:  # XFS may refuse on a full disk to allocate what is allocated already
                _allocate_or_write(fd, room)
            _write_whole(fd, text.ljust(room))
        yield files
    full: OSError | None = None
    for name, room in rooms.items():
        spare = spare_name(name)
        if not _exchange_files(folder, spare, name):
            os.rename(spare, name, src_dir_fd=folder, dst_dir_fd=folder)
        fd = os.open(spare, _FLAGS | os.O_CREAT, 0o600, dir_fd=folder)
        try:
            if os.fstat(fd).st_size < room:
                _allocate_or_write(fd, room)
        except OSError as error:  # the new version is in place, and has to stay
            full = error
        finally:
            os.close(fd)
    yield (folder,)
    if full is not None:
        raise full


def read_text(folder: int, name: str, most: int = -1) -> bytes | None:
    """Content of a file of the folder, at most ``most`` bytes (-1: the whole file); None if the file is missing."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(most)


def remove_file(folder: int, name: str) -> bool:
    """Remove a file and its spare; return whether the file existed. The caller has to sync the folder."""
    found = False
    for each in (spare_name(name), name):
        with suppress(FileNotFoundError):
            os.unlink(each, dir_fd=folder)
            found = each == name
    return found


def _rounded_to_block(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _allocate_or_write(fd: int, size: int) -> None:
    try:
        kernel.allocate_range(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        _write_whole(fd, bytes(size))


def _write_whole(fd: int, content: bytes) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(fd, content[done:], done)


def _exchange_files(folder: int, spare: str, name: str) -> bool:
    try:
        kernel.rename_exchange(folder, spare, name)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENOSYS):
            raise
        return False
    return True
