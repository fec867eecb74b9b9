"""A staging file as a target: owned by a single process while the file is open, and sparse.

The fence is the exclusive flock that a process holds until its end: a stopped process keeps the flock, so that no other
process writes meanwhile; a dead process has lost the flock.  No check in the writer could promise as much.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from dataclasses import replace

from blockjobs.model.errors import BlockjobsError, JobFailed, LeaseLost
from blockworker.copy.digests import CHUNK, DigestFile
from blockworker.host.roots import Roots
from blockworker.records import journal as journals
from blockworker.records.files import is_staging_file, target_errors_as_failure
from blockworker.records.folder import release_folder_lock
from blockworker.records.journal import MemberFiles
from blockworker.records.member_journal import place_of_member
from blockworker.system import kernel
from blockworker.targets.written import Written
from blockworker.volumes.base import expect_within, request_error
from blockworker.volumes.qemuimg import ImageTool
from blockworker.volumes.traces import Traces


class StagingBusy(BlockjobsError):
    """Another process has the staging file open for writing, and has to die first."""


def open_staging(roots: Roots, member: MemberFiles, name: str, *, patience: float = 0.0) -> int:
    """Open the staging file (or its digests, by name) and take the flock.

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
        with target_errors_as_failure(member.target):
            ours = name != member.staging or is_staging_file(member, fd)
        if not ours or (name == member.staging and cut):
            raise JobFailed(errno.ENOENT, f"staging file {path} is not the one that was opened: it was replaced or cut")
        _lock_staging_file(fd, path, time.monotonic() + patience)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock_staging_file(fd: int, path: str, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StagingBusy(f"staging file {path} is open in another process") from None
        time.sleep(0.005)


class StagedTarget(Written):
    """The staging file of a member, taken for an attempt."""

    def __init__(self, fd: int, member: MemberFiles, digests: DigestFile | None, *, fresh: bool) -> None:
        super().__init__(fd, member.size, f"{member.directory}/{member.staging}")
        self.member = member
        self.digests = digests
        self.fresh = fresh  # no attempt has written to the file before, or the earlier bytes are gone
        self._traces = Traces(member.size, CHUNK, fresh=fresh)

    @classmethod
    def take(cls, roots: Roots, member: MemberFiles, token: int) -> StagedTarget:
        """Own the member's staging file under the claim ``token``.

        Raises:
            StagingBusy: another process still holds the file.
            LeaseLost: a higher token was recorded.
            JobFailed: the file is gone, or the transaction is decided.
        """
        fd = open_staging(roots, member, member.staging, patience=journals.PATIENCE)
        try:
            with target_errors_as_failure(member.target):
                fresh = _raise_token(roots, member, token) == 0
            digests = None
            if member.digests:
                path = f"{member.directory}/{member.digests}"
                digests_fd = open_staging(roots, member, member.digests)
                digests = DigestFile(digests_fd, member.size, label=path, fresh=fresh)
            return cls(fd, replace(member, token=token), digests, fresh=fresh)
        except BaseException:
            release_folder_lock(fd)
            raise

    def start_over(self, roots: Roots) -> None:
        """Restore the file to its state after OPEN, whatever an earlier attempt wrote.  Raises JobFailed."""
        member, place = self.member, f"{self.member.directory}/{self.member.staging}"
        try:
            os.ftruncate(self._fd, 0)
            if member.format:
                image = ImageTool(self._fd, member.format, member.target, cage=roots.cage)
                image.create(member.size, member.words, member.name)
            else:
                os.ftruncate(self._fd, member.size)
            if self.digests is not None:
                self.digests.start_over()
        except OSError as error:
            code = error.errno or errno.EIO
            raise JobFailed(code, f"staging file {place} cannot be made anew: {os.strerror(code)}") from None
        self.fresh, self._traces = True, Traces(member.size, CHUNK, fresh=True)

    def fileno(self) -> int:
        return self._fd

    def pwrite(self, view: memoryview, offset: int) -> None:
        self._traces.mark(offset, len(view))
        super().pwrite(view, offset)

    def zero(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """Make the range a hole; return the parts that cannot become a hole, for the caller to write zeros."""
        expect_within(self.size, self._label, offset, length)
        if not self._traces.may_hold(offset, length):
            return ()
        try:
            if self._punches:
                try:
                    kernel.punch_hole(self._fd, offset, length)
                    return ()
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                        raise
                    self._punches = False
            return [*kernel.data_ranges(self._fd, offset, offset + length)]
        except OSError as error:
            raise request_error("write", self._label, offset, length, error.errno) from None

    def close(self) -> None:
        """Release the file.  Closing makes no byte durable: only ``flush`` does."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                if self.digests is not None:
                    self.digests.close()
                self._writeback.close()
            finally:  # NFS may report an error on close: this process lives on, and must not keep the lock
                release_folder_lock(fd)


def _raise_token(roots: Roots, member: MemberFiles, token: int) -> int:
    """Record the token in the journal, durably, before the first byte is written; return the highest earlier token."""
    root = place_of_member(roots, member)
    with journals.locked_open_journal(roots, root, member.transaction) as journal:
        record = journal.record if journal is not None else None
        known = journal.member(member.job) if journal is not None else None
        if journal is None or record is None or known is None or known.uuid != member.uuid:
            raise JobFailed(errno.ENOENT, f"no journal beneath {root.path} knows the staging file of {member.target}")
        if record.decision is not None or known.settled:
            raise JobFailed(
                errno.ECANCELED, f"transaction '{member.transaction}' is already decided: nothing is written"
            )
        if token < known.token:
            raise LeaseLost(member.job)
        if token > known.token:
            journal.put(replace(known, token=token))
        return known.token
