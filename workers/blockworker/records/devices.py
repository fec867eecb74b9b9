"""What this host knows of the devices that are written in place: a record each, on disk, and a lock each.

``devices/NAME.json`` in the host's state directory, NAME made of the device's own identity and not of its path.  A
record that lies beneath a write root is found as well, and carried over by whoever takes it.  Rule: from before the
first byte is written until a job commits, the record says that what is on the device is undefined; whoever writes the
record, or the device, holds the flock of ``NAME.lock``.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final

from blake3 import blake3

from blockjobs.model.errors import JobFailed
from blockworker.host import state
from blockworker.host.roots import Roots
from blockworker.host.state import StatePlace, failing
from blockworker.records.device_record import DeviceRecord, DeviceState, Held, read_device
from blockworker.records.folder import LockBusy, release
from blockworker.system.identity import identify
from blockworker.system.sparefile import remove_file

__all__ = [
    "DeviceRecord",
    "DeviceState",
    "Held",
    "LockBusy",
    "carry_over",
    "clear",
    "every",
    "identify",
    "of_job",
    "open_source",
    "take",
    "told",
    "undefined",
]  # fmt: skip

log = logging.getLogger(__name__)

PATIENCE: Final = 2.0  # seconds; whoever holds a lock for longer writes, or is stopped


# --- reading, without a lock --------------------------------------------------------------------------


def every(roots: Roots) -> list[DeviceRecord]:
    """All records; one that cannot be read is left out, and logged."""
    found: dict[str, DeviceRecord] = {}
    for place in _places(roots):
        with suppress(FileNotFoundError), _opened(place) as folder:
            for name in sorted(os.listdir(folder)):
                if name.endswith(".json") and not name.startswith(".") and name not in found:
                    try:
                        if (record := read_device(folder, name, f"{place.path}/{name}")) is not None:
                            found[name] = record
                    except JobFailed as failed:
                        log.warning("%s", failed)
    return [found[name] for name in sorted(found)]


def of_job(roots: Roots, job: str) -> DeviceRecord | None:
    """The record of the device that a job has, or had last."""
    return next((record for record in every(roots) if record.job == job), None)


def undefined(roots: Roots) -> list[DeviceRecord]:
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


def told(roots: Roots, record: DeviceRecord) -> str:
    """Why a device is undefined, for people."""
    at = datetime.fromtimestamp(record.left_at).astimezone()
    name = f"{_name(record.identity)}.json"
    paths = [path for place in _places(roots) if os.path.exists(path := f"{place.path}/{name}")]
    where = f"; see {paths[0]}" if paths else ""
    return (
        f"what is on device {record.path} is undefined: job '{record.left_by}' has written to it since "
        f"{at:%Y-%m-%d %H:%M:%S}, and no job onto it has completed{where}"
    )


# --- writing, with the lock ---------------------------------------------------------------------------


def take(roots: Roots, identity: str, *, patience: float = PATIENCE) -> Held:
    """The record of a device, with its lock.

    Raises:
        LockBusy: another process has it.
        JobFailed: this host has no place for it.
    """
    places = _places(roots)
    if not places:
        text = (
            f"host {roots.config.name} has no state directory and no write root, in which the state of devices is kept"
        )
        raise JobFailed(errno.EACCES, text)
    name, place = _name(identity), places[0]
    with failing(place.path):
        folder = place.open(make=True)
    lock = -1
    try:
        lock = _take_lock(folder, name, place, patience)
        held = Held(folder, lock, name, f"{place.path}/{name}.json")
    except BaseException:
        if lock >= 0:
            release(lock)
        os.close(folder)
        raise
    try:
        for earlier in places[1:]:
            with suppress(FileNotFoundError):
                _adopt(held, earlier, name)
    except BaseException:
        held.close()
        raise
    return held


def _take_lock(folder: int, name: str, place: StatePlace, patience: float) -> int:
    deadline = time.monotonic() + patience
    lock = os.open(f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockBusy(f"another process has the device ({place.path}/{name}.lock)") from None
            time.sleep(0.005)
    except BaseException:
        os.close(lock)
        raise


def _adopt(held: Held, earlier: StatePlace, name: str) -> None:
    """Carry the record over from where an earlier version, or another order of the write roots, has put it.

    A worker that has not been restarted yet may still write by that record: then its lock is busy.
    """
    with _opened(earlier) as folder:
        os.stat(f"{name}.json", dir_fd=folder, follow_symlinks=False)
        lock = _take_lock(folder, name, earlier, patience=0)
        try:
            record = read_device(folder, f"{name}.json", f"{earlier.path}/{name}.json")
            if held.record is None and record is not None:
                held.write(record)
            remove_file(folder, f"{name}.json")
            os.fsync(folder)
        finally:
            release(lock)


def carry_over(roots: Roots, root: str) -> None:
    """Bring the records beneath a write root to the host's state directory, if it has one.

    A record that another process has stays where it is, and is found there, until this is called again.
    """
    if not state.is_uncarried(roots.config, root):
        return
    whole, place = True, state.beneath(root).below("devices")
    with suppress(FileNotFoundError), _opened(place) as folder:
        for name in os.listdir(folder):
            if not name.endswith(".json") or name.startswith("."):
                continue
            try:
                if (record := read_device(folder, name, f"{place.path}/{name}")) is not None:
                    take(roots, record.identity, patience=0).close()
            except (LockBusy, JobFailed, OSError) as error:
                whole = False
                log.warning("%s/%s is not carried over: %s", place.path, name, error)
    if whole:
        state.mark_carried(roots.config, root)


def clear(roots: Roots, path: str) -> list[DeviceRecord]:
    """Take a user's word that it is known what is on a device: forget that it was left half-written.

    The device need not be there any more: then its records go by the path that the job named.

    Raises:
        JobFailed: it is not on record as undefined, or a job that is not over has it.
    """
    found = [record for record in undefined(roots) if path == record.path or _identity_at(path) == record.identity]
    if not found:
        raise JobFailed(errno.ENOENT, f"device {path} is not on record as undefined on host {roots.config.name}")
    return [_clear(roots, record) for record in found]


def _clear(roots: Roots, record: DeviceRecord) -> DeviceRecord:
    with take(roots, record.identity) as held:
        current = held.record
        if current is None or current.state is not DeviceState.UNDEFINED:
            job = current.job if current is not None else record.job
            raise JobFailed(errno.EBUSY, f"job '{job}' has device {record.path}: one of no job was expected")
        held.remove()
        return current


def _identity_at(path: str) -> str:
    try:
        return identify(os.stat(path).st_rdev, path)
    except OSError:
        return ""


def _places(roots: Roots) -> list[StatePlace]:
    """Where records of devices lie, the first being where they are written."""
    return [place.below("devices") for place in state.places_of(roots.config)]


@contextmanager
def _opened(place: StatePlace) -> Iterator[int]:
    folder = place.open()
    try:
        yield folder
    finally:
        os.close(folder)


def _name(identity: str) -> str:
    return blake3(identity.encode(errors="replace")).hexdigest()[:16]
