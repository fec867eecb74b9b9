"""The host's records of devices written in place: a file on disk and a lock per device.

A record is ``devices/NAME.json`` in the host's state directory; NAME is made from the device's identity and not from
the device's path.  A record beneath a write root is found too, and ``take_device_lock`` moves the record to the state
directory.
Rule: from before the first byte is written until a job commits, the record says that the device's content is undefined.
A process that writes the record or the device holds the flock of ``NAME.lock``.
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
from blockworker.host.state import StatePlace, state_errors_as_failure
from blockworker.records.device_record import DeviceRecord, DeviceState, Held, read_device
from blockworker.records.folder import LockBusy, release_folder_lock
from blockworker.system.identity import identify_device
from blockworker.system.sparefile import remove_file

__all__ = [
    "DeviceRecord",
    "DeviceState",
    "Held",
    "LockBusy",
    "carry_over",
    "clear_device_record",
    "device_records",
    "identify_device",
    "of_job",
    "open_source",
    "take_device_lock",
    "undefined_devices",
    "why_undefined",
]  # fmt: skip

log = logging.getLogger(__name__)

PATIENCE: Final = 2.0  # seconds; a process that holds a lock for longer is writing to the device, or is stopped


# --- reading, without a lock --------------------------------------------------------------------------


def device_records(roots: Roots) -> list[DeviceRecord]:
    """Every device record, by file name; an unreadable record is left out, and logged."""
    found: dict[str, DeviceRecord] = {}
    for place in _record_folders(roots):
        with suppress(FileNotFoundError), _opened_folder(place) as folder:
            for name in sorted(os.listdir(folder)):
                if name.endswith(".json") and not name.startswith(".") and name not in found:
                    try:
                        if (record := read_device(folder, name, f"{place.path}/{name}")) is not None:
                            found[name] = record
                    except JobFailed as failed:
                        log.warning("%s", failed)
    return [found[name] for name in sorted(found)]


def of_job(roots: Roots, job: str) -> DeviceRecord | None:
    """The record of the device that a job writes, or wrote last."""
    return next((record for record in device_records(roots) if record.job == job), None)


def undefined_devices(roots: Roots) -> list[DeviceRecord]:
    """The records of devices whose content is undefined."""
    return [record for record in device_records(roots) if record.left_by]


def open_source(roots: Roots, path: str) -> int:
    """Open a device of the allow-list for reading, if the device's content is defined.

    Raises:
        JobFailed: the device is not allowed, or a job has left the device half-written.
    """
    fd = roots.open_device(path)
    try:
        identity = identify_device(os.fstat(fd).st_rdev, path)
        for record in undefined_devices(roots):
            if record.identity == identity:
                raise JobFailed(
                    errno.EBADMSG, f"source {path} on host {roots.config.name}: {why_undefined(roots, record)}"
                )
    except BaseException:
        os.close(fd)
        raise
    return fd


def why_undefined(roots: Roots, record: DeviceRecord) -> str:
    """Explain in one sentence why a device is undefined."""
    at = datetime.fromtimestamp(record.left_at).astimezone()
    name = f"{_record_name(record.identity)}.json"
    paths = [path for place in _record_folders(roots) if os.path.exists(path := f"{place.path}/{name}")]
    where = f"; see {paths[0]}" if paths else ""
    return (
        f"what is on device {record.path} is undefined: job '{record.left_by}' has written to it since "
        f"{at:%Y-%m-%d %H:%M:%S}, and no job onto it has completed{where}"
    )


# --- writing, with the lock ---------------------------------------------------------------------------


def take_device_lock(roots: Roots, identity: str, *, patience: float = PATIENCE) -> Held:
    """Take the lock of a device and read its record.

    Raises:
        LockBusy: another process holds the lock.
        JobFailed: this host has no directory for the record.
    """
    places = _record_folders(roots)
    if not places:
        text = (
            f"host {roots.config.name} has no state directory and no write root, in which the state of devices is kept"
        )
        raise JobFailed(errno.EACCES, text)
    name, place = _record_name(identity), places[0]
    with state_errors_as_failure(place.path):
        folder = place.open(make=True)
    lock = -1
    try:
        lock = _take_lock(folder, name, place, patience)
        held = Held(folder, lock, name, f"{place.path}/{name}.json")
    except BaseException:
        if lock >= 0:
            release_folder_lock(lock)
        os.close(folder)
        raise
    try:
        for earlier in places[1:]:
            with suppress(FileNotFoundError):
                _adopt_earlier_record(held, earlier, name)
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


def _adopt_earlier_record(held: Held, earlier: StatePlace, name: str) -> None:
    """Move the record from the directory where an earlier version, or another order of the write roots, has put it.

    A worker that has not been restarted yet may still use that earlier record; its lock is then busy.
    """
    with _opened_folder(earlier) as folder:
        os.stat(f"{name}.json", dir_fd=folder, follow_symlinks=False)
        lock = _take_lock(folder, name, earlier, patience=0)
        try:
            record = read_device(folder, f"{name}.json", f"{earlier.path}/{name}.json")
            if held.record is None and record is not None:
                held.write(record)
            remove_file(folder, f"{name}.json")
            os.fsync(folder)
        finally:
            release_folder_lock(lock)


def carry_over(roots: Roots, root: str) -> None:
    """Move the records beneath a write root to the host's state directory, if the host has a state directory.

    A record that another process holds stays beneath the root, and is found there, until the next call.
    """
    if not state.is_uncarried(roots.config, root):
        return
    whole, place = True, state.record_folder_beneath(root).below("devices")
    with suppress(FileNotFoundError), _opened_folder(place) as folder:
        for name in os.listdir(folder):
            if not name.endswith(".json") or name.startswith("."):
                continue
            try:
                if (record := read_device(folder, name, f"{place.path}/{name}")) is not None:
                    take_device_lock(roots, record.identity, patience=0).close()
            except (LockBusy, JobFailed, OSError) as error:
                whole = False
                log.warning("%s/%s is not carried over: %s", place.path, name, error)
    if whole:
        state.mark_carried(roots.config, root)


def clear_device_record(roots: Roots, path: str) -> list[DeviceRecord]:
    """Accept a user's statement that a device's content is known: remove the record of the half-written job.

    A device that is no longer attached is found by the path that the job named.

    Raises:
        JobFailed: no record says that the device is undefined, or an unfinished job holds the device.
    """
    found = [
        record for record in undefined_devices(roots) if path == record.path or _identity_at(path) == record.identity
    ]
    if not found:
        raise JobFailed(errno.ENOENT, f"device {path} is not on record as undefined on host {roots.config.name}")
    return [_clear_undefined(roots, record) for record in found]


def _clear_undefined(roots: Roots, record: DeviceRecord) -> DeviceRecord:
    with take_device_lock(roots, record.identity) as held:
        current = held.record
        if current is None or current.state is not DeviceState.UNDEFINED:
            job = current.job if current is not None else record.job
            raise JobFailed(errno.EBUSY, f"job '{job}' has device {record.path}: one of no job was expected")
        held.remove()
        return current


def _identity_at(path: str) -> str:
    try:
        return identify_device(os.stat(path).st_rdev, path)
    except OSError:
        return ""


def _record_folders(roots: Roots) -> list[StatePlace]:
    """Directories with device records; records are written to the first directory."""
    return [place.below("devices") for place in state.places_of(roots.config)]


@contextmanager
def _opened_folder(place: StatePlace) -> Iterator[int]:
    folder = place.open()
    try:
        yield folder
    finally:
        os.close(folder)


def _record_name(identity: str) -> str:
    return blake3(identity.encode(errors="replace")).hexdigest()[:16]
