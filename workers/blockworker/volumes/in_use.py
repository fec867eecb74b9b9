"""Whether a process writes to a source now: QEMU's image lock, and devices mounted or held exclusively.

A file that is merely open proves no writer.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import DeviceVolume, FileVolume, Volume
from blockjobs.process.clock import seconds_since_boot
from blockworker.host.roots import Roots
from blockworker.system import image_locks
from blockworker.system.relatives import open_relatives

WATCH_INTERVAL: Final = 1.0  # seconds between two looks at the locks of a source that is being read
_QEMU: Final = "QEMU writes to it"
_TRIES, _REST = 3, 0.02  # another job of ours may run the same check at this moment


def expect_still(volume: Volume, roots: Roots, *, live: bool = False, cut: bool = False) -> None:
    """Refuse a source while a process writes to a file that is read directly: old and new data would be mixed.

    ``live``: mixed data is accepted. ``cut``: the top file is read from a cut. Neither applies to the tables of an
    image of a format, nor to the layers below: they must not change while they are read.

    Raises:
        JobFailed: a file or device of the source is in use.
    """
    image = volumespec.format_image(volume) is not None
    for number, store in enumerate(volumespec.files_and_devices(volume)):
        if number:
            text = f"layer {store.filename} of source {volumespec.volume_label(volume)}"
            _expect_free(store, roots, text, "a layer that nobody writes to was expected")
        elif not cut and (image or not live):
            wanted = "a snapshot was expected" if image else "a snapshot was expected, or 'live: true'"
            _expect_free(store, roots, f"source {store.filename}", wanted)


def is_written(volume: Volume, roots: Roots) -> bool:
    """Whether QEMU has a file of a volume open for writing. Raises JobFailed: a file cannot be opened."""
    for store in volumespec.files_and_devices(volume):
        fd = open_store(store, roots)
        try:
            if image_locks.is_written(fd):
                return True
        finally:
            os.close(fd)
    return False


def is_torn(spec: JobSpec, roots: Roots) -> bool:
    """Whether a cut made now would lack writes that a guest believes complete: QEMU has them in memory.

    True for an image of a format opened by QEMU for writing, unless a ``quiesce`` command makes QEMU write the data.
    Writes to a raw image are in the file, or in the page cache, and thereby in a cut.
    """
    if spec.options.get("quiesce") or volumespec.format_image(spec.source.volume) is None:
        return False
    return is_written(spec.source.volume, roots)


def _expect_free(store: FileVolume | DeviceVolume, roots: Roots, called: str, wanted: str) -> None:
    fd = open_store(store, roots)
    try:
        who = _describe_writer(fd, device=isinstance(store, DeviceVolume))
    finally:
        os.close(fd)
    if who:
        raise JobFailed(errno.EBUSY, f"{called} is in use ({who}): {wanted}")


def open_store(store: FileVolume | DeviceVolume, roots: Roots) -> int:
    """A read-only descriptor of a file or device of a source, owned by the caller. Raises JobFailed."""
    return roots.open_device(store.filename) if isinstance(store, DeviceVolume) else roots.open_source(store.filename)


def _describe_writer(fd: int, *, device: bool) -> str:
    if image_locks.is_written(fd):
        return _QEMU
    relatives = open_relatives(fd)
    try:
        if _any_guest_writes(relatives):
            return "QEMU writes to what shares bytes with it"
    finally:
        for relative in relatives:
            os.close(relative)
    if device and not _is_device_free(fd):
        return "it is mounted, or somebody has it for himself"
    return ""


def _any_guest_writes(fds: Iterable[int]) -> bool:
    return any(image_locks.is_written(fd) and image_locks.is_kept(fd) for fd in fds)


def _is_device_free(fd: int) -> bool:
    for left in reversed(range(_TRIES)):
        try:
            os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                return True  # no answer is possible
        if left:
            time.sleep(_REST)
    return False


# --- while it is read ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Writer:
    """The writer of a file or device of a source.

    ``mixed``: the bytes read do not belong to a single image, but to tables of several moments, or to a layer that
    should not be written.
    """

    who: str
    mixed: bool


@dataclass(frozen=True, slots=True)
class _Watched:
    fd: int
    called: str
    still: bool  # no process may write to the file
    mixed: bool  # if a process writes
    numbers: frozenset[str]  # MAJOR:MINOR of a device and of its partitions
    relatives: tuple[int, ...]  # descriptors of devices that share bytes with the device

    def is_written(self) -> bool:
        """Whether QEMU writes to the file or to shared bytes; a part-writing job of ours shares the lock."""
        return image_locks.is_written(self.fd) or _any_guest_writes(self.relatives)


class SourceWatch:
    """The files and devices of a source, for one attempt: locked as QEMU locks sources, sharing everything.

    A guest can therefore start on the source at any time; the attempt notices the guest by the writer's lock.
    """

    def __init__(self, volume: Volume, roots: Roots, *, live: bool = False, cut: bool = False) -> None:
        """Lock the source. ``live``, ``cut``: as for ``expect_still``. Raises JobFailed: a file cannot be opened."""
        self._watched: list[_Watched] = []
        self._next = 0.0
        image = volumespec.format_image(volume) is not None
        try:
            for number, store in enumerate(volumespec.files_and_devices(volume)):
                if number == 0 and cut:
                    continue
                called = f"layer {store.filename}" if number else store.filename
                mixed = image or number > 0
                fd = open_store(store, roots)
                relatives = tuple(open_relatives(fd))
                self._watched.append(_Watched(fd, called, mixed or not live, mixed, _device_numbers(fd), relatives))
                image_locks.lock_as_reader(fd)
        except BaseException:
            self.close()
            raise

    def writer(self, *, at_once: bool = True) -> Writer | None:
        """The writer of a file that has to stand still; None if no file is written.

        ``at_once`` False: also None if the previous check was less than ``WATCH_INTERVAL`` ago.
        """
        if not at_once and seconds_since_boot() < self._next:
            return None
        self._next = seconds_since_boot() + WATCH_INTERVAL
        for each in self._watched:
            if each.still and each.is_written():
                return Writer(f"{each.called}: {_QEMU}", each.mixed)
            if each.still and each.numbers and each.numbers & _mounted_for_writing():
                return Writer(f"{each.called}: it is mounted", each.mixed)
        return None

    def close(self) -> None:
        """Release the locks. May be called again."""
        for each in self._watched:
            for fd in (each.fd, *each.relatives):
                image_locks.close_locked_image(fd)
        self._watched = []


def _device_numbers(fd: int) -> frozenset[str]:
    """``MAJOR:MINOR`` of a block device and of its partitions; empty for a file."""
    if not stat.S_ISBLK((st := os.fstat(fd)).st_mode):
        return frozenset()
    number = f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}"
    found = {number}
    with suppress(OSError), os.scandir(f"/sys/dev/block/{number}") as entries:
        for entry in entries:
            if os.path.exists(f"{entry.path}/partition"):
                found.add(Path(f"{entry.path}/dev").read_text(encoding="ascii").strip())
    return frozenset(found)


def _mounted_for_writing() -> frozenset[str]:
    """``MAJOR:MINOR`` of every file system mounted for writing, as far as this process sees."""
    found = set()
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[-1].split(",")[0] == "rw":  # the last field has the options of the file system itself
                found.add(fields[2])
    return frozenset(found)
