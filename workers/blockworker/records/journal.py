"""The journal: the files that a transaction has made beneath a root, and the transaction's decision, on disk.

``ROOT/.blockjobs/TRANSACTION.journal`` is JSON, replaced whole (``sparefile``); each member beyond the first few has a
separate file (``member_files``).  Rule: a process that creates, renames or unlinks a file of the transaction holds the
flock of ``TRANSACTION.lock``, and reads the journal after taking the lock.  A settled transaction leaves a tombstone,
``ROOT/.blockjobs/settled/TRANSACTION.journal``: no file of the transaction is ever created again.  Many small runs
leave thousands of tombstones a week: a search for open journals skips them, and tombstones have no lock files.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from blockjobs.model import ids
from blockjobs.model.errors import JobFailed
from blockjobs.process.clock import read_boot_id, seconds_since_boot
from blockjobs.registry.each import Each
from blockjobs.registry.submit import split_batches
from blockworker.host.roots import Root, Roots, directories_between
from blockworker.records import folder as folders
from blockworker.records.entries import CutRecord, JournalRecord, MemberFiles, Proven
from blockworker.records.folder import SETTLED, LockBusy, folder_of, release_folder_lock, remove_folder, take_lock
from blockworker.records.member_files import has_file, member_files, member_of, members_of, remove_member_files
from blockworker.system.kernel import NO_SPACE
from blockworker.system.sparefile import read_text, remove_file, replace_file, replacing_files, spare_name
from blockworker.system.together import Durably, do_alone

__all__ = [
    "CutRecord",
    "Journal",
    "JournalRecord",
    "JournalView",
    "LockBusy",
    "MemberFiles",
    "Proven",
    "call_or_log",
    "item_of",
    "journal_root",
    "keep_room",
    "locked_journal",
    "locked_open_journal",
    "looked_into",
    "only_place",
    "read_journal",
    "read_member",
    "read_members",
    "scan_open_journals",
    "sweep_tombstones",
]  # fmt: skip

T = TypeVar("T")
log = logging.getLogger(__name__)

FEW: Final = 4  # members recorded in the journal itself: most transactions have one file
MOST_OF_EARLIER_BOOTS: Final = 10_000  # tombstones
_AT_ONCE: Final = 100  # members' files that are open at once
PATIENCE: Final = 2.0  # seconds; a holder needs milliseconds, and a slower holder is stopped or on a dead disk


def _read_record(folder: int, name: str, path: str) -> JournalRecord | None:
    """Read the tombstone, else the journal; both exist if a worker died after writing the first."""
    text = None
    with suppress(FileNotFoundError), folders.opened_tombstones(folder) as settled:
        text = read_text(settled, name)
    if text is None:
        text = read_text(folder, name)
    return None if text is None else JournalRecord.parse(text, path)


class JournalView:
    """A journal read without its lock, never to be changed.  ``record`` is None without a journal."""

    def __init__(self, folder: int, transaction: str, path: str) -> None:
        self._folder, self._transaction, self._path = folder, transaction, path
        self._name = f"{transaction}.journal"
        self.record = _read_record(folder, self._name, path) if folder >= 0 else None

    def member(self, job: str) -> MemberFiles | None:
        """The journal's entry of a job; None if the journal does not know the job."""
        return member_of(self._folder, self.record, self._transaction, job, self._path)

    def members(self) -> Iterator[MemberFiles]:
        """Iterate over the members, reading a file at a time."""
        return members_of(self._folder, self.record, self._transaction, self._path)


class Journal(JournalView):
    """The journal under its lock.  ``record`` is None until a journal exists; ``registry`` begins a new journal."""

    def __init__(self, folder: int, lock: int, path: str, transaction: str, registry: str = "") -> None:
        super().__init__(folder, transaction, path)
        self.lock, self._registry = lock, registry
        if self.record is not None and self.record.clean:
            self._bury()
        self._removed = self._emptied = False

    def put(self, *members: MemberFiles) -> None:
        """Run ``putting`` of these members to the end."""
        do_alone(self.putting(*members))

    def putting(self, *members: MemberFiles) -> Durably[None]:
        """Record these members durably: in the journal itself up to FEW members, further members in separate files."""
        record = self.record or JournalRecord(self._transaction, registry=self._registry)
        inside, outside = record, []
        for member in members:
            if self._is_inside(inside, member.job):
                inside = inside.having(member)
            else:
                outside.append(member)
        if outside and self.record is None:  # first: a reader that finds no journal looks for no members
            self.write(record)
        if inside is not record or self.record is None:
            self.write(inside)  # not in parallel: a single file holds these members
        for some in split_batches(outside, _AT_ONCE):
            with member_files(self._folder, self._transaction, make=True) as files:
                yield from replacing_files(files, {member.job: member.dump() for member in some})

    def _is_inside(self, record: JournalRecord, job: str) -> bool:
        """Whether a job's entry is, or will be, in the journal itself."""
        if job in record.members:
            return True
        if len(record.members) >= FEW:
            return False
        with member_files(self._folder, self._transaction) as files:
            return files < 0 or not has_file(files, job)

    def drop(self, job: str) -> None:
        """Remove the entry of a job that made nothing, and, on ``close``, a journal without other members."""
        if (record := self.record) is None:
            return
        with member_files(self._folder, self._transaction) as files:
            if files >= 0 and remove_file(files, job):
                os.fsync(files)
        rest = record.without(job)
        if not rest.members and next(self.members_but(job), None) is None:
            self.record, self._emptied = rest, True  # another job of this batch may be about to be recorded
        elif rest.members != record.members:
            self.write(rest)

    def close(self) -> None:
        """Remove the traces of a journal never begun, and complete ``drop``; the lock is still held."""
        self.lock = -1
        if self._emptied and self.record is not None:
            if next(self.members(), None) is None:
                self.remove()
            else:
                self.write(self.record)
        if self.record is None:
            self.remove()
        elif self.record.clean:
            self.unlock()

    def members_but(self, job: str) -> Iterator[MemberFiles]:
        """Iterate over the members except ``job``."""
        return (member for member in self.members() if member.job != job)

    @property
    def settled(self) -> bool:
        """Whether the transaction is decided and every member is settled."""
        record = self.record
        return record is not None and record.decision is not None and all(each.settled for each in self.members())

    def decide(self, decision: str, number: int) -> None:
        """Record the decision durably, unless a decision is recorded already."""
        if self.record is not None and self.record.decision is None:
            self.write(replace(self.record, decision=decision, decision_number=number))

    def write(self, record: JournalRecord) -> None:
        """Replace the journal itself durably; a clean record is written as the tombstone."""
        record = replace(record, at=time.time(), boot=read_boot_id(), uptime=seconds_since_boot())
        if record.clean:
            with folders.opened_tombstones(self._folder, make=True) as settled:
                self._put_tombstone(settled, record)
            self._bury()
        else:
            record = self._outside(record)
            replace_file(self._folder, self._name, record.dump())
        self.record = record

    def _outside(self, record: JournalRecord) -> JournalRecord:
        """Move the members of a version 1 journal beyond the first FEW to separate files."""
        if len(record.members) <= FEW:
            return record
        names = list(record.members)
        try:
            with member_files(self._folder, self._transaction, make=True) as files:
                for some in split_batches(names[FEW:], _AT_ONCE):
                    do_alone(replacing_files(files, {name: record.members[name].dump() for name in some}))
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            return record  # unchanged: the old layout holds the same record
        return replace(record, members={name: record.members[name] for name in names[:FEW]})

    def _put_tombstone(self, settled: int, record: JournalRecord) -> None:
        """Write the tombstone into the room reserved for the journal's next version."""
        spare = spare_name(self._name)
        fd = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        with os.fdopen(fd, "wb") as file:
            file.write(record.dump())
            file.truncate()
            file.flush()
            os.fsync(fd)
        os.rename(spare, self._name, src_dir_fd=self._folder, dst_dir_fd=settled)
        os.fsync(settled)

    def _bury(self) -> None:
        """Remove the journal and the members' files: the tombstone is durable."""
        remove_member_files(self._folder, self._transaction)
        if remove_file(self._folder, self._name):
            os.fsync(self._folder)

    def remove(self) -> None:
        """Remove the journal, and last its lock file: another process may then begin a journal of this name."""
        if self._removed:
            return
        self._removed = True
        with suppress(FileNotFoundError), folders.opened_tombstones(self._folder) as settled:
            if remove_file(settled, self._name):
                os.fsync(settled)
        with suppress(OSError):  # fails if a member has a file: the member is not forgotten
            os.rmdir(f"{self._transaction}.members", dir_fd=self._folder)
        remove_file(self._folder, self._name)
        self.unlock()
        os.fsync(self._folder)
        self.record = None

    def unlock(self) -> None:
        """Remove the lock file while holding the lock: a waiting process notices the removal and makes a new file."""
        with suppress(FileNotFoundError):
            os.unlink(f"{self._transaction}.lock", dir_fd=self._folder)


# --- reading, and taking the lock ---------------------------------------------------------------------


def read_journal(roots: Roots, root: Root, transaction: str) -> JournalRecord | None:
    """Read the journal itself without its lock, never to be changed."""
    with looked_into(roots, root, transaction) as view:
        return view.record


def read_member(roots: Roots, root: Root, transaction: str, job: str) -> MemberFiles | None:
    """Read the journal's entry of a job without the lock."""
    with looked_into(roots, root, transaction) as view:
        return view.member(job)


def read_members(roots: Roots, root: Root, transaction: str) -> list[MemberFiles]:
    """Read the journal's entries of every job without the lock."""
    with looked_into(roots, root, transaction) as view:
        return list(view.members())


@contextmanager
def looked_into(roots: Roots, root: Root, transaction: str) -> Iterator[JournalView]:
    """The journal without its lock, until the context ends."""
    ids.job_id(transaction)
    path = f"{folder_of(root)}/{transaction}.journal"
    try:
        folder = roots.open_dir(folder_of(root))
    except JobFailed as failed:
        if failed.errno != errno.ENOENT:
            raise
        yield JournalView(-1, transaction, path)
        return
    try:
        yield JournalView(folder, transaction, path)
    finally:
        os.close(folder)


def journal_root(roots: Roots, target: str, transaction: str, job: str) -> Root:
    """The root whose journal knows the job: the root that OPEN chose, even if the write roots have changed.

    If no journal knows the job: the root of the target.  A journal above every current write root is not found.
    """
    root = roots.root_of(target, write=True)
    settled = None
    for place in [root, *_other_places(roots, target, root)]:
        with looked_into(roots, place, transaction) as view:
            if view.record is not None and view.record.clean:
                settled = settled or place
            elif view.member(job) is not None:
                return place
    return settled or root


def only_place(roots: Roots, target: str, transaction: str) -> Root | None:
    """The answer of ``journal_root`` for every job with a target in this directory; None if the answers may differ.

    New journals are made at current roots only: a directory that has no journal of the transaction now will get none.
    """
    root = roots.root_of(target, write=True)
    others = _other_places(roots, target, root)
    return root if all(read_journal(roots, place, transaction) is None for place in others) else None


def _other_places(roots: Roots, target: str, root: Root) -> list[Root]:
    return [place for place in _possible_roots(roots, target) if place != root]


def _possible_roots(roots: Roots, target: str) -> list[Root]:
    """Directories above the target that may have been write roots, innermost first."""
    top = min(
        (each for each in map(Root, roots.config.target_roots) if each.holds(target)), key=lambda it: len(it.path)
    )
    inner = (
        [Root(path) for path in directories_between(top.path, os.path.dirname(target))] if target != top.path else []
    )
    return [*reversed(inner), top]


def call_or_log(_item: str, call: Callable[[], T], /) -> T | None:
    """Call; log and skip an invalid journal, so that a bad journal does not stop the work on the rest."""
    try:
        return call()
    except JobFailed as failed:
        log.warning("%s", failed)
        return None


def scan_open_journals(roots: Roots, root: Root, each: Each = call_or_log) -> Iterator[JournalRecord]:
    """Iterate over the open journals beneath the root, without locks.  ``each``: calls the reader of a journal."""
    return _scan_folder(roots, folder_of(root), each)


def item_of(root: Root, transaction: str) -> str:
    """The name of a journal in messages, as ``each`` gets the name."""
    return f"journal {folder_of(root)}/{transaction}.journal"


def _scan_folder(roots: Roots, path: str, each: Each) -> Iterator[JournalRecord]:
    try:
        folder = roots.open_dir(path)
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return
        raise
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".journal") and not name.startswith("."))
        for name in names:
            record = each(f"journal {path}/{name}", partial(_record_of, folder, path, name))
            if record is not None:
                yield record
    finally:
        os.close(folder)


def _record_of(folder: int, path: str, name: str) -> JournalRecord | None:
    """The record in a journal; None: the file is gone.  Raises JobFailed: the file is no valid journal."""
    if (text := read_text(folder, name)) is None:
        return None
    record = JournalRecord.parse(text, f"{path}/{name}")
    if name != f"{record.transaction}.journal":
        of = f"is of transaction '{record.transaction}', which its name does not tell"
        raise JobFailed(errno.EBADMSG, f"journal {path}/{name} {of}: it is left alone")
    return record


def keep_room(roots: Roots, root: Root, each: Each = call_or_log) -> None:
    """Reserve room for the next version of each open journal; journals of version 1 have no room."""
    for record in scan_open_journals(roots, root, each):
        each(item_of(root, record.transaction), partial(_keep_room_of, roots, root, record.transaction))


def _keep_room_of(roots: Roots, root: Root, transaction: str) -> None:
    folder = roots.open_dir(folder_of(root))
    try:
        spare = has_file(folder, spare_name(f"{transaction}.journal"))
    finally:
        os.close(folder)
    if not spare:
        with suppress(LockBusy), locked_open_journal(roots, root, transaction, patience=0) as journal:
            if journal is not None and journal.record is not None and not journal.record.clean:
                journal.write(journal.record)


@contextmanager
def locked_journal(roots: Roots, root: Root, transaction: str, *, patience: float = PATIENCE) -> Iterator[Journal]:
    """Hold the lock of a journal; ``record`` is None without a journal, and no file then stays behind.

    Raises:
        LockBusy: another process held the lock for ``patience`` seconds.
    """
    ids.job_id(transaction)  # the id becomes a file name
    folder, lock = take_lock(roots, root, transaction, patience)
    try:
        journal = Journal(folder, lock, f"{folder_of(root)}/{transaction}.journal", transaction, roots.registry)
        try:
            yield journal
        finally:
            journal.close()
            if journal.record is None:
                remove_folder(roots, root)
    finally:  # in every case: this process may live for days
        release_folder_lock(lock)
        os.close(folder)


@contextmanager
def locked_open_journal(
    roots: Roots, root: Root, transaction: str, *, patience: float = PATIENCE
) -> Iterator[Journal | None]:
    """Hold the lock of an existing journal; yield None, and make no file, without a journal."""
    if read_journal(roots, root, transaction) is None:
        yield None
        return
    with locked_journal(roots, root, transaction, patience=patience) as journal:
        yield journal if journal.record is not None else None


def sweep_tombstones(
    roots: Roots, root: Root, older_than_s: float, *, now: float | None = None, each: Each = call_or_log
) -> int:
    """Remove tombstones older than ``older_than_s``; return the number removed.

    Ages come from no wall clock: a tombstone of an earlier boot counts as old as this boot.  Tombstones of earlier
    boots are also limited in number, newest decisions first, so that a host with a boot each night does not collect
    tombstones without end.  ``now``: seconds since this boot.
    """
    boot, now = read_boot_id(), seconds_since_boot() if now is None else now
    old: list[str] = []
    earlier: list[tuple[int, str]] = []  # (decision number, transaction)
    for seen in _scan_folder(roots, f"{folder_of(root)}/{SETTLED}", each):
        if now - (seen.uptime if seen.boot == boot else 0.0) >= older_than_s:
            old.append(seen.transaction)
        elif seen.boot != boot:
            earlier.append((seen.decision_number, seen.transaction))
    old += [transaction for _, transaction in sorted(earlier)[:-MOST_OF_EARLIER_BOOTS]]
    removed = [each(item_of(root, txn), partial(_remove_tombstone, roots, root, txn)) for txn in old]
    remove_folder(roots, root)
    return sum(map(bool, removed))


def _remove_tombstone(roots: Roots, root: Root, transaction: str) -> bool:
    with suppress(LockBusy), locked_open_journal(roots, root, transaction, patience=0) as journal:
        if journal is not None and journal.record is not None and journal.record.clean:
            journal.remove()
            return True
    return False
