"""The journal: what a transaction has made beneath one root, and what was decided about it, on disk.

``ROOT/.blockjobs/TRANSACTION.journal`` is JSON, replaced whole (``sparefile``); members beyond the first few have
files of their own (``memberfiles``).  Rule: whoever creates, renames or unlinks anything of the transaction holds the
flock of ``TRANSACTION.lock``, and reads the journal after the lock was taken.  A settled transaction leaves a
tombstone, ``ROOT/.blockjobs/settled/TRANSACTION.journal``, under which nothing is ever created again.  A week's
tombstones of many small runs are thousands: a search for open journals does not meet them, and they have no lock files.
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
from blockjobs.process.clock import boottime, read_boot_id
from blockjobs.registry.each import Each
from blockjobs.registry.submit import batches
from blockworker.host.roots import Root, Roots, between
from blockworker.records import folder as folders
from blockworker.records.entries import CutRecord, JournalRecord, MemberFiles, Proven
from blockworker.records.folder import SETTLED, LockBusy, folder_of, release, remove_folder, take_lock
from blockworker.records.member_files import has_file, member_files, member_of, members_of, remove_member_files
from blockworker.system.kernel import NO_SPACE
from blockworker.system.sparefile import read_text, remove_file, replace_file, replacing, spare_name
from blockworker.system.together import Durably, do_alone

__all__ = [
    "CutRecord",
    "Journal",
    "JournalRecord",
    "JournalView",
    "LockBusy",
    "MemberFiles",
    "Proven",
    "held",
    "item_of",
    "keep_room",
    "locked",
    "logged",
    "looked_into",
    "only_place",
    "place_of",
    "read",
    "read_member",
    "read_members",
    "scan",
    "sweep_tombstones",
]  # fmt: skip

T = TypeVar("T")
log = logging.getLogger(__name__)

FEW: Final = 4  # members that are noted in the journal itself: most transactions are one file
MOST_OF_EARLIER_BOOTS: Final = 10_000  # tombstones
_AT_ONCE: Final = 100  # members' files that are open at once
PATIENCE: Final = 2.0  # seconds; a holder needs milliseconds, one that needs longer is stopped or on a dead disk


def _read(folder: int, name: str, path: str) -> JournalRecord | None:
    """The tombstone, or else the journal: where there are both, who wrote the one died before he removed the other."""
    text = None
    with suppress(FileNotFoundError), folders.settled(folder) as settled:
        text = read_text(settled, name)
    if text is None:
        text = read_text(folder, name)
    return None if text is None else JournalRecord.parse(text, path)


class JournalView:
    """A journal without its lock: for looking only.  ``record`` is None where there is none."""

    def __init__(self, folder: int, transaction: str, path: str) -> None:
        self._folder, self._transaction, self._path = folder, transaction, path
        self._name = f"{transaction}.journal"
        self.record = _read(folder, self._name, path) if folder >= 0 else None

    def member(self, job: str) -> MemberFiles | None:
        """What the journal says of a job."""
        return member_of(self._folder, self.record, self._transaction, job, self._path)

    def members(self) -> Iterator[MemberFiles]:
        """Every member, one at a time."""
        return members_of(self._folder, self.record, self._transaction, self._path)


class Journal(JournalView):
    """The journal under its lock.  ``record`` is None while there is none; one that is begun is ``registry``'s."""

    def __init__(self, folder: int, lock: int, path: str, transaction: str, registry: str = "") -> None:
        super().__init__(folder, transaction, path)
        self.lock, self._registry = lock, registry
        if self.record is not None and self.record.clean:
            self._bury()
        self._removed = self._emptied = False

    def put(self, *members: MemberFiles) -> None:
        """``putting`` these members, to its end."""
        do_alone(self.putting(*members))

    def putting(self, *members: MemberFiles) -> Durably[None]:
        """Note these members, durably: in the journal itself while they are few, else each in a file of its own."""
        record = self.record or JournalRecord(self._transaction, registry=self._registry)
        inside, outside = record, []
        for member in members:
            if self._is_inside(inside, member.job):
                inside = inside.having(member)
            else:
                outside.append(member)
        if outside and self.record is None:  # first: who finds no journal looks for no members
            self.write(record)
        if inside is not record or self.record is None:
            self.write(inside)  # not beside others' work: each member that is noted here is in it
        for some in batches(outside, _AT_ONCE):
            with member_files(self._folder, self._transaction, make=True) as files:
                yield from replacing(files, {member.job: member.dump() for member in some})

    def _is_inside(self, record: JournalRecord, job: str) -> bool:
        """Whether the journal itself has, or is to have, what is said of a job."""
        if job in record.members:
            return True
        if len(record.members) >= FEW:
            return False
        with member_files(self._folder, self._transaction) as files:
            return files < 0 or not has_file(files, job)

    def drop(self, job: str) -> None:
        """Forget a job that made nothing; the journal as well, where no other is in it when its lock is given up."""
        if (record := self.record) is None:
            return
        with member_files(self._folder, self._transaction) as files:
            if files >= 0 and remove_file(files, job):
                os.fsync(files)
        rest = record.without(job)
        if not rest.members and next(self.members_but(job), None) is None:
            self.record, self._emptied = rest, True  # another job of this batch may be about to be noted
        elif rest.members != record.members:
            self.write(rest)

    def close(self) -> None:
        """Leave no trace of a journal that is not there, and finish what ``drop`` began; the lock is still held."""
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
        """Every member but one."""
        return (member for member in self.members() if member.job != job)

    @property
    def settled(self) -> bool:
        """Whether it is decided and nothing is left to do for its members."""
        record = self.record
        return record is not None and record.decision is not None and all(each.settled for each in self.members())

    def decide(self, decision: str, number: int) -> None:
        """Note the decision, durably, where there is none."""
        if self.record is not None and self.record.decision is None:
            self.write(replace(self.record, decision=decision, decision_number=number))

    def write(self, record: JournalRecord) -> None:
        """Replace the journal itself, durably; by its tombstone where it is clean."""
        record = replace(record, at=time.time(), boot=read_boot_id(), uptime=boottime())
        if record.clean:
            with folders.settled(self._folder, make=True) as settled:
                self._put_tombstone(settled, record)
            self._bury()
        else:
            record = self._outside(record)
            replace_file(self._folder, self._name, record.dump())
        self.record = record

    def _outside(self, record: JournalRecord) -> JournalRecord:
        """Give the members of a journal of version 1 files of their own, if they are more than a few."""
        if len(record.members) <= FEW:
            return record
        names = list(record.members)
        try:
            with member_files(self._folder, self._transaction, make=True) as files:
                for some in batches(names[FEW:], _AT_ONCE):
                    do_alone(replacing(files, {name: record.members[name].dump() for name in some}))
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            return record  # as it always was: what it says can be said all the same
        return replace(record, members={name: record.members[name] for name in names[:FEW]})

    def _put_tombstone(self, settled: int, record: JournalRecord) -> None:
        """Write it where the journal's next version has its room."""
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
        """The tombstone is durable: what it stands for may go."""
        remove_member_files(self._folder, self._transaction)
        if remove_file(self._folder, self._name):
            os.fsync(self._folder)

    def remove(self) -> None:
        """Remove the journal, and last its lock file: from then on another may have one of the same name."""
        if self._removed:
            return
        self._removed = True
        with suppress(FileNotFoundError), folders.settled(self._folder) as settled:
            if remove_file(settled, self._name):
                os.fsync(settled)
        with suppress(OSError):  # a member that has a file there is not forgotten
            os.rmdir(f"{self._transaction}.members", dir_fd=self._folder)
        remove_file(self._folder, self._name)
        self.unlock()
        os.fsync(self._folder)
        self.record = None

    def unlock(self) -> None:
        """Remove the lock file, which is held: whoever waits for it finds it gone, and makes his own."""
        with suppress(FileNotFoundError):
            os.unlink(f"{self._transaction}.lock", dir_fd=self._folder)


# --- reading, and taking the lock ---------------------------------------------------------------------


def read(roots: Roots, root: Root, transaction: str) -> JournalRecord | None:
    """The journal itself without its lock: for looking only."""
    with looked_into(roots, root, transaction) as view:
        return view.record


def read_member(roots: Roots, root: Root, transaction: str, job: str) -> MemberFiles | None:
    """What the journal says of a job, without its lock."""
    with looked_into(roots, root, transaction) as view:
        return view.member(job)


def read_members(roots: Roots, root: Root, transaction: str) -> list[MemberFiles]:
    """What the journal says of all its jobs, without its lock."""
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


def place_of(roots: Roots, target: str, transaction: str, job: str) -> Root:
    """The root, or what was one, whose journal knows the job: where OPEN put it, whatever the write roots are now.

    Where none knows it: the root of the target.  A journal above all of today's write roots is not found.
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
    """What ``place_of`` says of every job of the transaction in this target's directory; None where they may differ.

    Journals are made at today's roots only: where no other place has one now, none will.
    """
    root = roots.root_of(target, write=True)
    others = _other_places(roots, target, root)
    return root if all(read(roots, place, transaction) is None for place in others) else None


def _other_places(roots: Roots, target: str, root: Root) -> list[Root]:
    return [place for place in _places(roots, target) if place != root]


def _places(roots: Roots, target: str) -> list[Root]:
    """The directories above the target that may have been write roots, the innermost first."""
    top = min(
        (each for each in map(Root, roots.config.target_roots) if each.holds(target)), key=lambda it: len(it.path)
    )
    inner = [Root(path) for path in between(top.path, os.path.dirname(target))] if target != top.path else []
    return [*reversed(inner), top]


def logged(_item: str, call: Callable[[], T], /) -> T | None:
    """Call; a journal that is none of ours is logged and passed over, as one bad journal must not stop the others."""
    try:
        return call()
    except JobFailed as failed:
        log.warning("%s", failed)
        return None


def scan(roots: Roots, root: Root, each: Each = logged) -> Iterator[JournalRecord]:
    """Every open journal beneath the root without its lock, one at a time.  ``each``: how one is handled."""
    return _scan(roots, folder_of(root), each)


def item_of(root: Root, transaction: str) -> str:
    """The name of a journal for people, as ``each`` gets it."""
    return f"journal {folder_of(root)}/{transaction}.journal"


def _scan(roots: Roots, path: str, each: Each) -> Iterator[JournalRecord]:
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
    """The record in a journal; None: it is gone.  Raises JobFailed: it is none of ours."""
    if (text := read_text(folder, name)) is None:
        return None
    record = JournalRecord.parse(text, f"{path}/{name}")
    if name != f"{record.transaction}.journal":
        of = f"is of transaction '{record.transaction}', which its name does not tell"
        raise JobFailed(errno.EBADMSG, f"journal {path}/{name} {of}: it is left alone")
    return record


def keep_room(roots: Roots, root: Root, each: Each = logged) -> None:
    """Give each open journal the room for its next version; those of version 1 have none."""
    for record in scan(roots, root, each):
        each(item_of(root, record.transaction), partial(_keep_room_of, roots, root, record.transaction))


def _keep_room_of(roots: Roots, root: Root, transaction: str) -> None:
    folder = roots.open_dir(folder_of(root))
    try:
        spare = has_file(folder, spare_name(f"{transaction}.journal"))
    finally:
        os.close(folder)
    if not spare:
        with suppress(LockBusy), locked(roots, root, transaction, patience=0) as journal:
            if journal is not None and journal.record is not None and not journal.record.clean:
                journal.write(journal.record)


@contextmanager
def held(roots: Roots, root: Root, transaction: str, *, patience: float = PATIENCE) -> Iterator[Journal]:
    """The journal with its lock held; its ``record`` is None while there is none, and then no trace of it stays.

    Raises:
        LockBusy: another process held the lock for ``patience`` seconds.
    """
    ids.job_id(transaction)  # it becomes a file name
    folder, lock = take_lock(roots, root, transaction, patience)
    try:
        journal = Journal(folder, lock, f"{folder_of(root)}/{transaction}.journal", transaction, roots.registry)
        try:
            yield journal
        finally:
            journal.close()
            if journal.record is None:
                remove_folder(roots, root)
    finally:  # whatever happens: this process may live for days
        release(lock)
        os.close(folder)


@contextmanager
def locked(roots: Roots, root: Root, transaction: str, *, patience: float = PATIENCE) -> Iterator[Journal | None]:
    """The journal with its lock held; None if there is none, and then nothing is made."""
    if read(roots, root, transaction) is None:
        yield None
        return
    with held(roots, root, transaction, patience=patience) as journal:
        yield journal if journal.record is not None else None


def sweep_tombstones(
    roots: Roots, root: Root, older_than_s: float, *, now: float | None = None, each: Each = logged
) -> int:  # fmt: skip
    """Remove tombstones of that age; return how many.

    No wall clock says how old one is: one of an earlier boot is as old as this boot, and of those the newest decisions'
    stay, so that on a host that boots each night they do not grow for ever.  ``now``: seconds since this boot.
    """
    boot, now = read_boot_id(), boottime() if now is None else now
    old: list[str] = []
    earlier: list[tuple[int, str]] = []  # by decision
    for seen in _scan(roots, f"{folder_of(root)}/{SETTLED}", each):
        if now - (seen.uptime if seen.boot == boot else 0.0) >= older_than_s:
            old.append(seen.transaction)
        elif seen.boot != boot:
            earlier.append((seen.decision_number, seen.transaction))
    old += [transaction for _, transaction in sorted(earlier)[:-MOST_OF_EARLIER_BOOTS]]
    removed = [each(item_of(root, txn), partial(_remove_tombstone, roots, root, txn)) for txn in old]
    remove_folder(roots, root)
    return sum(map(bool, removed))


def _remove_tombstone(roots: Roots, root: Root, transaction: str) -> bool:
    with suppress(LockBusy), locked(roots, root, transaction, patience=0) as journal:
        if journal is not None and journal.record is not None and journal.record.clean:
            journal.remove()
            return True
    return False
