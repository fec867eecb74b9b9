"""The record of a device written in place: a JSON file, replaced under the device's lock."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Self

from blockjobs.model.errors import JobFailed
from blockworker.records.folder import release_folder_lock
from blockworker.system.sparefile import read_text, remove_file, replace_file

VERSION: Final = 1


class DeviceState(StrEnum):
    OPENED = "opened"  # the job may write to the device, and has not begun
    INVALID = "invalid"  # the job has written, or is about to
    UNDEFINED = "undefined"  # the job was given up after writing
    VALID = "valid"  # the job has committed


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """A device, and the last job on the device."""

    identity: str
    path: str  # path as the job named the device
    state: DeviceState
    job: str
    transaction: str
    uuid: str  # checkpoints count only for a device whose record has this uuid
    size: int  # bytes that the job writes
    offset: int = 0  # of the first byte that the job writes
    device_size: int
    token: int = 0
    decision_number: int = 0
    left_by: str = ""  # the last job to begin writing, if no job has completed since
    left_at: float = 0.0
    manifest: Mapping[str, Any] | None = None  # manifest of the image that a committed job wrote
    prepared: Mapping[str, Any] | None = None  # the manifest of the job about to commit
    at: float = 0.0
    which: str = ""  # the device as ``which_device`` names it: more exact than ``identity``; "" in an old record
    unknown: Mapping[str, Any] = field(default_factory=dict)  # keys of a later release, written back unchanged

    @property
    def untouched(self) -> int:
        """Bytes of the device that the job does not write."""
        return self.device_size - self.size

    def dump(self) -> bytes:
        keys = asdict(self)
        return json.dumps({"version": VERSION, **keys.pop("unknown"), **keys}, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes, path: str) -> DeviceRecord:
        try:
            keys = json.loads(text)
            if keys.pop("version") != VERSION:
                raise ValueError("another version")
            unknown = {name: keys.pop(name) for name in list(keys) if name not in cls.__slots__ or name == "unknown"}
            return cls(**{**keys, "state": DeviceState(keys["state"]), "unknown": unknown})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JobFailed(errno.EBADMSG, f"record {path} is not one of version {VERSION}: {error}") from None


class Held:
    """A device's record with its lock held until ``close``."""

    def __init__(self, folder: int, lock: int, name: str, path: str) -> None:
        self._folder, self._lock, self._name = folder, lock, name
        try:
            self.record = read_device(folder, f"{name}.json", path)
        except BaseException:
            self.close()
            raise

    def write(self, record: DeviceRecord) -> DeviceRecord:
        """Replace the record durably."""
        record = replace(record, at=time.time())
        replace_file(self._folder, f"{self._name}.json", record.dump())
        self.record = record
        return record

    def remove(self) -> None:
        remove_file(self._folder, f"{self._name}.json")
        os.fsync(self._folder)
        self.record = None

    def close(self) -> None:
        if self._lock >= 0:
            release_folder_lock(self._lock)  # the lock file stays: a lock counts only on the file with this name
            os.close(self._folder)
            self._lock = self._folder = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_device(folder: int, name: str, path: str) -> DeviceRecord | None:
    text = read_text(folder, name)
    return None if text is None else DeviceRecord.parse(text, path)
