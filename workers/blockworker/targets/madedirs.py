"""Directories made for targets beneath a root, recorded so that an abort can remove the directories.

Jobs of one run share a directory: the last aborted job finds the directory empty.  A note for each directory,
``ROOT/.blockjobs/directories/DIGEST``, says that the directory was made for a job, and no job has committed in the
directory since.  A directory without a note (and in no journal) is the user's, and stays.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Final

from blake3 import blake3

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Root, Roots, directories_between
from blockworker.records.files import remove_dirs
from blockworker.records.folder import MADE_DIRS, folder_of

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def own_dirs(roots: Roots, root: Root, base: str, directory: str) -> tuple[str, ...]:
    """Directories below ``base``, down to this directory, that are missing or were made for another job."""
    missing = set(roots.missing_dirs(base, directory))
    with _opened_notes(roots, root) as notes:
        return tuple(path for path in directories_between(base, directory) if path in missing or _is_noted(notes, path))


def note_dirs(roots: Roots, root: Root, paths: Iterable[str]) -> None:
    """Note directories that are about to be made, durably."""
    if not (paths := list(paths)):
        return None
    for _ in range(10):
        with (
            suppress(FileNotFoundError),
            _opened_notes(roots, root, make=True) as notes,
        ):  # the folder was empty, and removed
            return _write_notes(notes, paths)
    raise JobFailed(errno.ENOENT, f"directory {folder_of(root)}/{MADE_DIRS} is removed again and again")


def _write_notes(notes: int, paths: Iterable[str]) -> None:
    new = [path for path in paths if not _is_noted(notes, path)]
    for path in new:
        with os.fdopen(os.open(_note_name(path), _FLAGS, 0o600, dir_fd=notes), "wb") as file:
            file.write(os.fsencode(path))
    if new:
        os.fsync(notes)


def keep_dirs(roots: Roots, root: Root, paths: Iterable[str]) -> None:
    """Drop the notes of directories: a file has been published in them."""
    with _opened_notes(roots, root) as notes:
        for path in paths if notes >= 0 else ():
            _drop_note(notes, path)
    _remove_empty(roots, root)


def remove_made_dirs(roots: Roots, root: Root, directory: str, made: Iterable[str]) -> None:
    """Remove the empty directories: those in ``made``, and noted directories above ``directory``."""
    ours = {*made}
    with _opened_notes(roots, root) as notes:
        ours.update(path for path in _directories_above(root, directory) if _is_noted(notes, path))
    left = remove_dirs(roots, ours)
    with _opened_notes(roots, root) as notes:
        for path in ours - {*left} if notes >= 0 else ():
            _drop_note(notes, path)
    with suppress(OSError):  # on a full disk: an empty directory may then stay
        note_dirs(roots, root, left)  # a later abort may find the directories empty
    _remove_empty(roots, root)


def forget_notes(roots: Roots, root: Root) -> None:
    """Drop every note: no job is open beneath the root."""
    with _opened_notes(roots, root) as notes:
        for name in os.listdir(notes) if notes >= 0 else ():
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=notes)
    _remove_empty(roots, root)


def _directories_above(root: Root, directory: str) -> list[str]:
    return directories_between(root.path, directory) if root.holds(directory) else []


@contextmanager
def _opened_notes(roots: Roots, root: Root, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder of notes; -1 without a folder, unless ``make`` is true."""
    fd = -1
    try:
        folder = roots.open_dir(folder_of(root))
    except JobFailed as failed:
        if failed.errno != errno.ENOENT:
            raise
        yield fd
        return
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(MADE_DIRS, 0o700, dir_fd=folder)
                os.fsync(folder)
        with nullcontext() if make else suppress(FileNotFoundError):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(MADE_DIRS, flags, dir_fd=folder)
        yield fd
    finally:
        os.close(folder)
        if fd >= 0:
            os.close(fd)


def _remove_empty(roots: Roots, root: Root) -> None:
    """Remove the folder of notes if the folder is empty."""
    with suppress(JobFailed, OSError):
        folder = roots.open_dir(folder_of(root))
        try:
            os.rmdir(MADE_DIRS, dir_fd=folder)
        finally:
            os.close(folder)


def _note_name(path: str) -> str:
    return blake3(os.fsencode(path)).hexdigest()[:32]


def _is_noted(notes: int, path: str) -> bool:
    if notes < 0:
        return False
    try:
        os.stat(_note_name(path), dir_fd=notes, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _drop_note(notes: int, path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_note_name(path), dir_fd=notes)
