"""A staging file as a target: owned by one process for as long as it is open, sparse, its writeback bounded.

The fence is the exclusive flock that is held for life: a stopped process keeps it, so nobody writes beside
it; a dead one has lost it.  No check in the writer could promise that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import Final

from blockjobs.model.errors import BlockjobsError, JobFailed, LeaseLost, VolumeError
from blockworker import kernel
from blockworker.copy.digests import DigestFile
from blockworker.roots import Roots
from blockworker.targets import journal as journals
from blockworker.targets.folder import release
from blockworker.targets.journal import Member
from blockworker.volumes.base import trouble

_STRIDE: Final = 8 << 20  # bytes; written back as soon as they are complete
_BEHIND: Final = 8  # strides in writeback before a writer waits for the oldest
_ZEROS: Final = memoryview(bytes(1 << 20))


class StagingBusy(BlockjobsError):
    """Another process has the staging file open for writing: it has to be dead first."""


def open_staging(roots: Roots, member: Member, name: str, *, patience: float = 0.0) -> int:
    """A descriptor of the staging file (or, by its name, of its digests), with its flock held.

    Raises:
        StagingBusy: another process held the lock for ``patience`` seconds.
    """
    path = f"{member.directory}/{name}"
    directory = roots.open_dir(member.directory)
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        code = error.errno or errno.EIO
        raise JobFailed(code, f"staging file {path}: {os.strerror(code)}") from None
    finally:
        os.close(directory)
    try:
        st = os.fstat(fd)
        cut = not member.format and st.st_size != member.size
        if name == member.staging and (not member.is_file(st) or cut):
            raise JobFailed(errno.ENOENT, f"staging file {path} is not the one that was opened: it was replaced or cut")
        _own(fd, path, time.monotonic() + patience)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _own(fd: int, path: str, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StagingBusy(f"staging file {path} is open in another process") from None
        time.sleep(0.005)


class StagedTarget:
    """The staging file of a member, taken for one attempt."""

    def __init__(self, fd: int, member: Member, digests: DigestFile | None, *, fresh: bool) -> None:
        self.member = member
        self.digests = digests
        self.size = member.size
        self._fd = fd
        self._label = f"{member.directory}/{member.staging}"
        self._fresh = fresh  # all that we did not write is a hole
        self._punches = True
        self._broken: VolumeError | None = None
        self._writeback = Writeback(fd, member.size)

    @classmethod
    def take(cls, roots: Roots, member: Member, token: int, *, rewrites: bool = False) -> StagedTarget:
        """Own the member's staging file under the claim ``token``; ``rewrites``: what was written may become zeros.

        Raises:
            StagingBusy: another process still has it.
            LeaseLost: a higher token was here before.
            JobFailed: it is gone, or the transaction is decided.
        """
        fd = open_staging(roots, member, member.staging, patience=journals.PATIENCE)
        try:
            fresh = _raise_token(roots, member, token) == 0 and not rewrites
            digests = None
            if member.digests:
                path = f"{member.directory}/{member.digests}"
                digests_fd = open_staging(roots, member, member.digests)
                digests = DigestFile(digests_fd, member.size, label=path, fresh=fresh)
            return cls(fd, replace(member, token=token), digests, fresh=fresh)
        except BaseException:
            release(fd)
            raise

    def fileno(self) -> int:
        return self._fd

    def pwrite(self, view: memoryview, offset: int) -> None:
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], offset + done)
        except OSError as error:
            self._fresh = False  # part of it may be there
            raise trouble("write", self._label, offset, len(view), error.errno) from None
        self._writeback.wrote(offset, len(view))

    def pread_into(self, view: memoryview, offset: int) -> None:
        done = 0
        try:
            while done < len(view):
                got = os.preadv(self._fd, [view[done:]], offset + done)
                if not got:
                    raise trouble("compare", self._label, offset, len(view), errno.EIO, why="it became shorter")
                done += got
        except OSError as error:
            raise trouble("compare", self._label, offset, len(view), error.errno) from None

    def zero(self, offset: int, length: int) -> None:
        if self._fresh:
            return None
        try:
            if self._punches:
                try:
                    return kernel.punch_hole(self._fd, offset, length)
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                        raise
                    self._punches = False
            end = offset + length
            while offset < end:
                offset += os.pwrite(self._fd, _ZEROS[: end - offset], offset)
        except OSError as error:
            raise trouble("write", self._label, offset, length, error.errno) from None

    def flush(self) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._broken = trouble("flush", self._label, 0, self.size, error.errno)
            raise self._broken from None
        self._writeback.flushed()

    def close(self) -> None:
        """Give the file up.  Says nothing about what is durable: only ``flush`` does."""
        if self._fd >= 0:
            if self.digests is not None:
                self.digests.close()
            self._writeback.close()
            release(self._fd)
            self._fd = -1


def _raise_token(roots: Roots, member: Member, token: int) -> int:
    """Note the token in the journal, durably, before the first byte is written; return the highest so far."""
    root = roots.root_of(member.target, write=True)
    with journals.locked(roots, root, member.transaction) as journal:
        record = journal.record if journal is not None else None
        known = record.members.get(member.job) if record is not None else None
        if journal is None or record is None or known is None or known.uuid != member.uuid:
            raise JobFailed(errno.ENOENT, f"no journal beneath {root.path} knows the staging file of {member.target}")
        if record.decision is not None or known.settled:
            raise JobFailed(
                errno.ECANCELED, f"transaction '{member.transaction}' is already decided: nothing is written"
            )
        if token < known.token:
            raise LeaseLost(member.job)
        if token > known.token:
            journal.write(record.having(replace(known, token=token)))
        return known.token


class Writeback:
    """Starts writeback of each stride that is complete, and drops from the cache what is on the disk.

    It has a descriptor of its own: the kernel tells each open file of a failed writeback once, and the one
    that is told has to be the one that ``flush`` asks.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
        self._size = size
        self._lock = threading.Lock()
        self._filled: dict[int, int] = {}  # stride -> bytes written in it
        self._started: deque[int] = deque()

    def wrote(self, offset: int, length: int) -> None:
        index, oldest = offset // _STRIDE, -1
        with self._lock:
            filled = self._filled.get(index, 0) + length
            self._filled[index] = filled
            if filled < _STRIDE and offset + length < self._size:
                return
            del self._filled[index]
            self._started.append(index)
            if len(self._started) > _BEHIND:
                oldest = self._started.popleft()
        with suppress(OSError):
            kernel.sync_file_range(self._fd, index * _STRIDE, _STRIDE, kernel.WRITE)
        if oldest >= 0:
            self._finish(oldest)

    def flushed(self) -> None:
        """All is on the disk: nothing of it is needed in the cache."""
        with self._lock:
            started = list(self._started)
            self._started.clear()
        for index in started:
            self._drop(index)

    def _finish(self, index: int) -> None:
        with suppress(OSError):
            every = kernel.WAIT_BEFORE | kernel.WRITE | kernel.WAIT_AFTER
            kernel.sync_file_range(self._fd, index * _STRIDE, _STRIDE, every)
        self._drop(index)

    def _drop(self, index: int) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._fd, index * _STRIDE, _STRIDE, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._fd)
