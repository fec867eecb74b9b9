"""The place of a host's records outside the roots, and how a record is read and replaced.

The place is the directory ``state`` of host.toml, 0700, by default ``/var/lib/blockjobs/NAME``. The worker makes the
directory if the parent directory allows that. Without the directory, the records lie beneath the first write root, in
``ROOT/.blockjobs``, as in earlier versions. Records beneath any write root are found, and the next change of a record
moves it to the state directory.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from blockjobs.model.errors import JobFailed
from blockworker.host.config import HostConfig, default_state
from blockworker.system.sparefile import read_text, remove_file, replace_file

FOLDER: Final = ".blockjobs"  # our own directory beneath a root
CARRIED: Final = "carried.json"  # the write roots without records left beneath them
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class StatePlace:
    """A directory of records: the configured directory, and our own folders below, which are no symlinks."""

    top: str
    inner: tuple[str, ...] = ()
    owned: bool = False  # the worker may make the top directory

    @property
    def path(self) -> str:
        return "/".join((self.top.rstrip("/"), *self.inner))

    def below(self, name: str) -> StatePlace:
        return replace(self, inner=(*self.inner, name))

    def open(self, *, make: bool = False) -> int:
        """A descriptor of the directory. Raises FileNotFoundError if the directory is missing and is not to be made."""
        if make and self.owned:
            os.makedirs(os.path.dirname(self.top), exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.top, 0o700)
                _sync_directory(os.path.dirname(self.top))
        here = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in self.inner:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=here)
                        os.fsync(here)
                below = os.open(name, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
        except BaseException:
            os.close(here)
            raise
        return here


def state_directory_of(config: HostConfig) -> StatePlace | None:
    """The place for this host's records; None: the host has neither a state directory nor a write root."""
    if has_directory(config):
        return StatePlace(config.state, owned=True)
    return record_folder_beneath(config.write_roots[0]) if config.write_roots else None


def has_directory(config: HostConfig) -> bool:
    """Whether the host's records lie in a state directory, and not beneath a write root.

    A directory named in host.toml is always made. The default directory is made only in a parent directory that exists
    (made by a service manager or a package) and can be written.
    """
    if config.state != default_state(config.name):
        return bool(config.state)
    return os.path.isdir(config.state) or os.access(os.path.dirname(config.state), os.W_OK | os.X_OK)


def places_of(config: HostConfig) -> list[StatePlace]:
    """Every directory in which records of this host may lie; records are written to the first directory."""
    first = state_directory_of(config)
    if first is None:
        return []
    roots = [root for root in config.write_roots if not first.owned or is_uncarried(config, root)]
    return list(dict.fromkeys([first, *map(record_folder_beneath, roots)]))


def record_paths(config: HostConfig) -> list[str]:
    """The directories of the host's records, once records of earlier versions are carried over."""
    first = state_directory_of(config)
    return [place.path for place in ([first] if first is not None and first.owned else places_of(config))]


def is_uncarried(config: HostConfig, root: str) -> bool:
    """Whether records of earlier versions may lie beneath a write root instead of in the state directory."""
    place = state_directory_of(config)
    return place is not None and place.owned and root not in _carried_roots(place)


def mark_carried(config: HostConfig, root: str) -> None:
    """Note that no records are left beneath a write root: no process looks for them again."""
    place = state_directory_of(config)
    if place is None or not place.owned:
        return
    with state_errors_as_failure(place.path), locked_record(place, CARRIED):
        roots = sorted({*_carried_roots(place), root})
        write_record(place, CARRIED, json.dumps(roots).encode() + b"\n")


def _carried_roots(place: StatePlace) -> list[str]:
    try:
        found = json.loads(read_record(place, CARRIED) or b"[]")
    except (ValueError, RecursionError):
        return []  # damaged: records carried over are looked for once more, and not found
    return [root for root in found if isinstance(root, str)] if isinstance(found, list) else []


def make_directory(config: HostConfig) -> None:
    """Make the state directory, if this host has one.

    Raises:
        JobFailed: the directory cannot be made, or is no directory.
    """
    if (place := state_directory_of(config)) is not None and place.owned:
        with state_errors_as_failure(place.path):
            os.close(place.open(make=True))


@contextmanager
def state_errors_as_failure(path: str) -> Iterator[None]:
    """Turn the kernel's errors into a text that names the state directory."""
    try:
        yield
    except OSError as error:
        code = error.errno or errno.EIO
        text = f"state directory {path}: {os.strerror(code)}: a directory that this user can write was expected"
        raise JobFailed(code, text) from error


def read_record(place: StatePlace, name: str) -> bytes | None:
    """The content of a record; None if the record does not exist."""
    try:
        folder = place.open()
    except FileNotFoundError:
        return None
    try:
        return read_text(folder, name)
    finally:
        os.close(folder)


def write_record(place: StatePlace, name: str, content: bytes) -> None:
    """Replace a record, durably; a missing directory is made."""
    folder = place.open(make=True)
    try:
        replace_file(folder, name, content)
    finally:
        os.close(folder)


def remove_record(place: StatePlace, name: str) -> None:
    """Remove a record, durably, if the record exists."""
    with suppress(FileNotFoundError):
        folder = place.open()
        try:
            remove_file(folder, name)
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def locked_record(place: StatePlace, name: str) -> Iterator[None]:
    """Hold the lock of a record shared by processes of this host; a holder rereads and replaces the record."""
    folder = place.open(make=True)
    try:
        lock = os.open(f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for a few milliseconds
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def record_folder_beneath(root: str) -> StatePlace:
    """The place for records beneath a write root."""
    return StatePlace(root, (FOLDER,))


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
