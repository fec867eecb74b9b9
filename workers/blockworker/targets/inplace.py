"""A block device as a target: written in place, so that an abort cannot undo a write.

The fence has two parts, both kernel locks that a process holds until its end: the flock of the device's record keeps
our other attempts out, and O_EXCL keeps every other user out (a mount as well).  Every step may be called again after a
crash.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Self
from uuid import uuid4

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed, LeaseLost
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.model.restores import TYPE as RESTORE
from blockworker.host.roots import Roots
from blockworker.records import devices
from blockworker.records.devices import DeviceRecord, DeviceState, Held
from blockworker.system import image_locks, kernel
from blockworker.system.identity import same_thing, which_device
from blockworker.system.relatives import open_relatives
from blockworker.targets.proof import NotPublished
from blockworker.targets.written import Written
from blockworker.volumes.base import Identity, expect_within, request_error
from blockworker.volumes.extents import RangeSet
from blockworker.volumes.overlap import have_common_bytes, lock_text, spans_of, spans_of_volume

log = logging.getLogger(__name__)

_PAGE: Final = 4096  # bytes; a range zeroed by a call begins and ends at a page boundary
HOLE_STEP: Final = 16 << 20  # bytes of a hole zeroed by a single call: a pause waits for the call


# --- the steps ----------------------------------------------------------------------------------------


def open_target(
    roots: Roots, spec: JobSpec, *, size: int, source: Identity, wanted: Callable[[], bool]
) -> tuple[DeviceRecord, str]:
    """Check the device and record that the job holds the device; return the record, and the locks that the job needs.

    No byte is written to the device.  ``wanted`` is asked under the lock, as for a staging file.

    Raises:
        JobFailed: the device is in use, too small, read-only, shares bytes with the source, or belongs to another job.
    """
    path = _device_path(spec)
    fd = _open_exclusively(roots, path)
    try:
        rdev, there, spans = os.fstat(fd).st_rdev, os.lseek(fd, 0, os.SEEK_END), spans_of(fd)
        which = which_device(rdev, path)
    finally:
        os.close(fd)
    published = spec.type == RESTORE
    read = [] if source.kind == "none" else spans_of_volume(roots, spec.source.volume, published=published)
    if have_common_bytes(read, spans):
        text = f"target {path} is the source itself, lies in it, or contains it ({spec.source.text})"
        raise JobFailed(errno.EINVAL, text)
    needed = lock_text(spans)
    if spec.offset + size > there:
        raise JobFailed(errno.ENOSPC, f"target {path} has {there} bytes, {spec.offset + size} are needed")
    identity = devices.identify_device(rdev, path)
    with devices.take_device_lock(roots, identity) as held:
        if not wanted():
            raise JobFailed(errno.ECANCELED, f"transaction '{spec.transaction}' is already decided: nothing is opened")
        before = held.record
        if before is not None and before.job == spec.id and before.state in (DeviceState.OPENED, DeviceState.INVALID):
            if before.size != size and before.state is DeviceState.INVALID:
                raise JobFailed(errno.EBUSY, f"the source of {path} changed its size from {before.size} to {size}")
            if before.state is DeviceState.INVALID and before.which and not same_thing(before.which, which):
                raise JobFailed(errno.ENODEV, f"target {path} is another device than the one that was opened")
            return held.write(replace(before, size=size, device_size=there, which=which)), needed
        if before is not None and before.state in (DeviceState.OPENED, DeviceState.INVALID):
            text = f"target {path} is in use: job '{before.job}' has the device, as {before.path}, and is not over"
            raise JobFailed(errno.EBUSY, text)
        record = DeviceRecord(
            identity=identity, path=path, state=DeviceState.OPENED, job=spec.id, transaction=spec.transaction,
            uuid=uuid4().hex, size=size, offset=spec.offset, device_size=there, which=which,
        )  # fmt: skip
        if before is not None:
            kept = before.manifest if not before.left_by else None
            record = replace(record, left_by=before.left_by, left_at=before.left_at, manifest=kept)
        return held.write(record), needed


def find_device_record(roots: Roots, spec: JobSpec) -> DeviceRecord:
    """The record of the device of an opened job."""
    record = devices.of_job(roots, spec.id)
    if record is None:
        raise JobFailed(errno.ENOENT, f"{spec.target.text} was never opened, or another job has it now")
    return record


def prepare_device(roots: Roots, record: DeviceRecord, durable: Checkpoint, manifest: Mapping[str, Any]) -> None:
    """Prove that every byte is durable on the device; afterwards a commit cannot fail."""
    with devices.take_device_lock(roots, record.identity) as held:
        current = _expect_same_job(held, record)
        if current.state is DeviceState.VALID:
            return  # a late repetition
        if durable.staging != current.uuid or not RangeSet(durable.ranges).covers(0, current.size):
            raise JobFailed(errno.EIO, f"target {current.path}: not all of it is known to be durable")
        fd = _open_same(roots, current)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        rest = {"device_size": current.device_size, "offset": current.offset, "untouched": current.untouched}
        held.write(replace(current, prepared={**manifest, "in_place": rest}))


def commit_device(roots: Roots, record: DeviceRecord, number: int) -> None:
    """Declare the device's content valid: from now on the content is the job's image."""
    with devices.take_device_lock(roots, record.identity) as held:
        current = _expect_same_job(held, record)
        if current.state is DeviceState.VALID:
            return
        if current.state is not DeviceState.INVALID or current.prepared is None:
            raise NotPublished(errno.EINVAL, f"target {current.path} was never prepared")
        held.write(
            replace(
                current,
                state=DeviceState.VALID,
                decision_number=number,
                left_by="",
                left_at=0.0,
                manifest=current.prepared,
                prepared=None,
            )
        )


def abort_device(roots: Roots, job: str, number: int) -> str:
    """Give the device up, with its content as written; return why the device is undefined, or ``""``."""
    record = devices.of_job(roots, job)
    if record is None:
        return ""
    with devices.take_device_lock(roots, record.identity) as held:
        current = held.record
        if current is None or current.job != job:
            return ""
        match current.state:
            case DeviceState.VALID if number > current.decision_number:
                return ""  # committed by an earlier decision that the registry has lost: the commit stands
            case DeviceState.VALID:
                raise JobFailed(errno.EINVAL, f"transaction '{current.transaction}' is committed on this host")
            case DeviceState.OPENED if not current.left_by and current.manifest is None:
                held.remove()
            case DeviceState.OPENED:  # unchanged: the content of an earlier job, or of a committed job
                held.write(
                    replace(current, state=DeviceState.UNDEFINED if current.left_by else DeviceState.VALID, job="")
                )
            case DeviceState.INVALID:
                gone = replace(current, state=DeviceState.UNDEFINED, decision_number=number, prepared=None)
                return devices.why_undefined(roots, held.write(gone))
            case DeviceState.UNDEFINED:
                return devices.why_undefined(roots, current)
    return ""


# --- the target ---------------------------------------------------------------------------------------


class DeviceTarget(Written):
    """The device of a job, taken for an attempt; offsets are relative to the copied range."""

    def __init__(self, fd: int, held: Held, record: DeviceRecord) -> None:
        super().__init__(fd, record.size, record.path, record.offset)
        self.record, self._held = record, held
        self._relatives = open_relatives(fd)
        for relative in self._relatives:
            image_locks.write_a_part(relative)

    @classmethod
    def take(cls, roots: Roots, spec: JobSpec, token: int) -> Self:
        """Own the device under the claim ``token``; from now on, and durably, the device's content is undefined.

        Raises:
            LockBusy: another attempt still holds the device.
            LeaseLost: a higher token was recorded.
            JobFailed: the device is in use or was exchanged, or the job is decided.
        """
        record = find_device_record(roots, spec)
        held = devices.take_device_lock(roots, record.identity)
        try:
            current = _expect_same_job(held, record)
            if current.state not in (DeviceState.OPENED, DeviceState.INVALID):
                raise JobFailed(errno.ECANCELED, f"transaction '{spec.transaction}' is decided: nothing is written")
            if token < current.token:
                raise LeaseLost(spec.id)
            fd = _open_same(roots, current)
            try:
                left_at = current.left_at if current.left_by == spec.id else time.time()
                now = replace(current, state=DeviceState.INVALID, token=token, left_by=spec.id, left_at=left_at)
                current = held.write(replace(now, manifest=None))
                return cls(fd, held, current)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            held.close()
            raise

    def zero(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """Zero the range; return the parts that the device cannot zero, for the caller to write zeros."""
        expect_within(self.size, self._label, offset, length)
        start, end = self._base + offset, self._base + offset + length
        first, last = -(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE
        rest = [(start, end)]
        if self._punches and first < last:
            try:
                kernel.punch_hole(self._fd, first, last - first)  # a device makes zeros or refuses
                rest = [(start, first), (last, end)]
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise request_error("write", self._label, start, length, error.errno) from None
                self._punches = False
        return [(here - self._base, till - self._base) for here, till in rest if here < till]

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                self._writeback.close()
                for relative in self._relatives:
                    image_locks.close_locked_image(relative)
                os.close(fd)
            finally:
                self._held.close()  # last: the next holder of this lock finds the device free


# --- shared functions ---------------------------------------------------------------------------------


def _device_path(spec: JobSpec) -> str:
    bottom = volumespec.bottom_volume(spec.target.volume)
    if not isinstance(bottom, volumespec.DeviceVolume):
        raise JobFailed(errno.EINVAL, f"target {spec.target.text}: a block device was expected for 'in-place: true'")
    return bottom.filename


def _open_exclusively(roots: Roots, path: str) -> int:
    """Open the device exclusively; wait a moment for programs that only inspect the device."""
    deadline = time.monotonic() + devices.PATIENCE
    while True:
        try:
            return roots.open_device(path, write=True)
        except JobFailed as failed:
            if failed.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def _open_same(roots: Roots, record: DeviceRecord) -> int:
    fd = _open_exclusively(roots, record.path)
    try:
        rdev = os.fstat(fd).st_rdev
        same = devices.identify_device(rdev, record.path) == record.identity
        if not same or (record.which and not same_thing(record.which, which_device(rdev, record.path))):
            raise JobFailed(errno.ENODEV, f"target {record.path} is another device than the one that was opened")
        if os.lseek(fd, 0, os.SEEK_END) < record.offset + record.size:
            raise JobFailed(errno.ENOSPC, f"target {record.path} has become smaller than what was opened")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _expect_same_job(held: Held, record: DeviceRecord) -> DeviceRecord:
    current = held.record
    if current is None or (current.job, current.uuid) != (record.job, record.uuid):
        other = f"job '{current.job}' has it" if current is not None else "its record is gone"
        raise NotPublished(errno.ENOENT, f"target {record.path} is not job '{record.job}'s any more: {other}")
    return current
