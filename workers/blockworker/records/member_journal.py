"""The journal of a member: root, lock, and the member's current entry."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Root, Roots
from blockworker.records import journal as journals
from blockworker.records.entries import JournalRecord, MemberFiles
from blockworker.records.journal import Journal


def place_of_member(roots: Roots, member: MemberFiles) -> Root:
    """The root whose journal knows a member, even if the write roots have changed."""
    return journals.journal_root(roots, member.target, member.transaction, member.job)


def lock_journal_of(roots: Roots, member: MemberFiles) -> AbstractContextManager[Journal | None]:
    """Lock the journal of a member; None, and no new file, without a journal.

    Raises:
        LockBusy: another process held the lock for ``journal.PATIENCE`` seconds.
    """
    return journals.locked_open_journal(roots, place_of_member(roots, member), member.transaction)


def known_member(journal: Journal | None, member: MemberFiles) -> tuple[JournalRecord, MemberFiles]:
    """The current record of the transaction and the current entry of the member.

    Raises:
        JobFailed: there is no journal, or the journal knows no staging file of this uuid (ENOENT).
    """
    record = journal.record if journal is not None else None
    current = journal.member(member.job) if journal is not None else None
    if record is None or current is None or current.uuid != member.uuid:
        raise JobFailed(errno.ENOENT, f"target {member.target}: the journal of '{member.transaction}' does not know it")
    return record, current
