"""What this host knows of the devices that are written in place: a record each, on disk, and a lock each.

``ROOT/.blockjobs/devices/NAME.json`` beneath the first write root, NAME made of the device's own identity and not of
its path.  Rule: from before the first byte is written until a job commits, the record says that what is on the device
is undefined; whoever writes the record, or the device, holds the flock of ``NAME.lock``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from blake3 import blake3

from blockjobs.model.errors import JobFailed
from blockworker.identity import identify
from blockworker.roots import Root, Roots
from blockworker.sparefile import read_text
from blockworker.targets.folder import LockBusy, folder_of, release

__all__ = [
    "Held", "Record", "State", "clear", "every", "identify", "of_job", "open_source", "take", "told",
    "undefined",
]  # fmt: skip

log = logging.getLogger(__name__)

VERSION: Final = 1
PATIENCE: Final = 2.0  # seconds; whoever holds a lock for longer writes, or is stopped


class State(StrEnum):
    OPENED = "opened"  # a job was let to it, and has written nothing
    INVALID = "invalid"  # a job has written, or is about to
    UNDEFINED = "undefined"  # that job was given up
    VALID = "valid"  # a job has committed


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One device, and the last job that had to do with it."""

    identity: str
    path: str  # as the job named it
    state: State
    job: str
    transaction: str
    uuid: str  # checkpoints count only for a device whose record has it
    size: int  # bytes that the job writes
    offset: int = 0  # of the first of them
    device_size: int
    token: int = 0
    decision_number: int = 0
    left_by: str = ""  # the job that began to write, where no job has completed since
    left_at: float = 0.0
    manifest: Mapping[str, Any] | None = None  # of what a committed job has written
    prepared: Mapping[str, Any] | None = None  # the manifest of the job that is about to commit
    at: float = 0.0

    @property
    def untouched(self) -> int:
        """Bytes of the device that the job leaves as they are."""
        return self.device_size - self.size

    def dump(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes, path: str) -> Record:
        try:
            keys = json.loads(text)
            if keys.pop("version") != VERSION:
                raise ValueError("another version")
            return cls(**{**keys, "state": State(keys["state"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JobFailed(errno.EBADMSG, f"record {path} is not one of version {VERSION}: {error}") from None


# --- reading, without a lock --------------------------------------------------------------------------


def every(roots: Roots) -> list[Record]:
    """All records; one that cannot be read is left out, and logged."""
    root = _root(roots)
    try:
        folder = roots.open_dir(_folder(root)) if root is not None else -1
    except JobFailed as failed:
        if failed.errno != errno.ENOENT:
            raise
        folder = -1
    if root is None or folder < 0:
        return []
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
        found = []
        for name in names:
            try:
                found.append(_read(folder, name, f"{_folder(root)}/{name}"))
            except JobFailed as failed:
                log.warning("%s", failed)
        return [record for record in found if record is not None]
    finally:
        os.close(folder)


def of_job(roots: Roots, job: str) -> Record | None:
    """The record of the device that a job has, or had last."""
    return next((record for record in every(roots) if record.job == job), None)


def undefined(roots: Roots) -> list[Record]:
    """The devices of which nobody can say what is on them."""
    return [record for record in every(roots) if record.left_by]


def open_source(roots: Roots, path: str) -> int:
    """A read-only descriptor of a device of the allow-list, of which it is known what is on it.

    Raises:
        JobFailed: it is not allowed, or a job has left it half-written.
    """
    fd = roots.open_device(path)
    try:
        identity = identify(os.fstat(fd).st_rdev, path)
        for record in undefined(roots):
            if record.identity == identity:
                raise JobFailed(errno.EBADMSG, f"source {path} on host {roots.config.name}: {told(roots, record)}")
    except BaseException:
        os.close(fd)
        raise
    return fd


def told(roots: Roots, record: Record) -> str:
    """Why a device is undefined, for people."""
    at = datetime.fromtimestamp(record.left_at).astimezone()
    root = _root(roots)
    where = f"; see {_folder(root)}/{_name(record.identity)}.json" if root is not None else ""
    return (
        f"what is on device {record.path} is undefined: job '{record.left_by}' has written to it since "
        f"{at:%Y-%m-%d %H:%M:%S}, and no job onto it has completed{where}"
    )


# --- writing, with the lock ---------------------------------------------------------------------------


class Held:
    """A device's record with its lock held, until ``close``."""

    def __init__(self, folder: int, lock: int, name: str, path: str) -> None:
        self._folder, self._lock, self._name = folder, lock, name
        try:
            self.record = _read(folder, f"{name}.json", path)
        except BaseException:
            self.close()
            raise

    def write(self, record: Record) -> Record:
        """Replace the record, durably."""
        record = replace(record, at=time.time())
        temporary, name = f".{self._name}.new", f"{self._name}.json"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self._folder)
        with os.fdopen(fd, "wb") as file:
            file.write(record.dump())
            file.flush()
            os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)
        self.record = record
        return record

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{self._name}.json", dir_fd=self._folder)
        os.fsync(self._folder)
        self.record = None

    def close(self) -> None:
        if self._lock >= 0:
            release(self._lock)  # its file stays: the lock is of whoever has the file of this name
            os.close(self._folder)
            self._lock = self._folder = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def take(roots: Roots, identity: str, *, patience: float = PATIENCE) -> Held:
    """The record of a device, with its lock.

    Raises:
        LockBusy: another process has it.
        JobFailed: this host has no place for it.
    """
    root = _root(roots)
    if root is None:
        text = f"host {roots.config.name} has no write root, in which the state of devices is kept"
        raise JobFailed(errno.EACCES, text)
    name, deadline = _name(identity), time.monotonic() + patience
    folder = _open_folder(roots, root)
    lock = -1
    try:
        lock = os.open(f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockBusy(f"another process has the device ({_folder(root)}/{name}.lock)") from None
            time.sleep(0.005)
    except BaseException:
        if lock >= 0:
            os.close(lock)
        os.close(folder)
        raise
    return Held(folder, lock, name, f"{_folder(root)}/{name}.json")


def clear(roots: Roots, path: str) -> list[Record]:
    """Take a user's word that it is known what is on a device: forget that it was left half-written.

    The device need not be there any more: then its records go by the path that the job named.

    Raises:
        JobFailed: it is not on record as undefined, or a job that is not over has it.
    """
    found = [record for record in undefined(roots) if path == record.path or _identity_at(path) == record.identity]
    if not found:
        raise JobFailed(errno.ENOENT, f"device {path} is not on record as undefined on host {roots.config.name}")
    return [_clear(roots, record) for record in found]


def _clear(roots: Roots, record: Record) -> Record:
    with take(roots, record.identity) as held:
        current = held.record
        if current is None or current.state is not State.UNDEFINED:
            job = current.job if current is not None else record.job
            raise JobFailed(errno.EBUSY, f"job '{job}' has device {record.path}: one of no job was expected")
        held.remove()
        return current


def _identity_at(path: str) -> str:
    try:
        return identify(os.stat(path).st_rdev, path)
    except OSError:
        return ""


def _open_folder(roots: Roots, root: Root) -> int:
    for _ in range(10):
        try:
            roots.make_dirs(root.path, _folder(root))
            return roots.open_dir(_folder(root))
        except (JobFailed, FileNotFoundError) as error:
            # The folder above was removed in between, by one who found it empty.
            if error.errno != errno.ENOENT:
                raise
    raise JobFailed(errno.ENOENT, f"directory {_folder(root)} is removed again and again")


def _read(folder: int, name: str, path: str) -> Record | None:
    text = read_text(folder, name)
    return None if text is None else Record.parse(text, path)


def _root(roots: Roots) -> Root | None:
    return Root(roots.config.write_roots[0]) if roots.config.write_roots else None


def _folder(root: Root) -> str:
    return f"{folder_of(root)}/devices"


def _name(identity: str) -> str:
    return blake3(identity.encode(errors="replace")).hexdigest()[:16]
