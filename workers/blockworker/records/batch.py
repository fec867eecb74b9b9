"""A batch of members: the journals are locked once, and facts that the members share are looked up once.

A batch is short: its members are begun within seconds, and its locks are released when the last member is through.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from blockworker.host.roots import Root, Roots
from blockworker.records import journal as journals
from blockworker.records.journal import Journal, JournalView, LockBusy, MemberFiles

T = TypeVar("T")


class Batch:
    """The members of a call.  ``roots``: roots above the targets.  ``owed``: asks which jobs the registry awaits."""

    def __init__(self, roots: Roots, owed: Callable[[], Collection[str]] | None = None) -> None:
        self.roots, self._owed = roots, owed
        self._open = ExitStack()
        self._held: dict[tuple[str, str], Journal] = {}
        self._busy: dict[tuple[str, str], LockBusy] = {}
        self._found: dict[Hashable, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return the result that ``find`` gave for this key; call ``find`` if the key is new."""
        if key not in self._found:
            self._found[key] = find()
        found: T = self._found[key]
        return found

    def forget(self, key: Hashable) -> None:
        """Drop a stored result that has proved wrong; the next ``once`` calls ``find`` again."""
        self._found.pop(key, None)

    def wanted(self, job: str, alone: Callable[[], bool]) -> Callable[[], bool]:
        """Build a test whether the registry still waits for a member: a single question for the batch, else ``alone``.

        To be called once every member of the batch holds its lock: files that are made without the lock could be made
        after an abort has removed the member's files.
        """
        owed = self._owed
        return alone if owed is None else lambda: job in self.once("owed", owed)

    def place_of(self, target: str, transaction: str, job: str) -> Root:
        """Find the root of a job's journal like ``journal_root``; a transaction shares the search if possible."""
        key = ("place", os.path.dirname(target), transaction)
        if (only := self.once(key, lambda: journals.only_place(self.roots, target, transaction))) is not None:
            return only
        return journals.journal_root(self.roots, target, transaction, job)

    def view(self, target: str, transaction: str, job: str) -> JournalView:
        """The journal of a job, read without its lock and once per batch; members' own files are read at each call."""
        place = self.place_of(target, transaction, job)
        return self.once(
            ("view", place, transaction),
            lambda: self._open.enter_context(journals.looked_into(self.roots, place, transaction)),
        )

    def find_member(self, target: str, transaction: str, job: str) -> MemberFiles | None:
        """The files that the journal records for a job, read without the lock."""
        return self.view(target, transaction, job).member(job)

    def hold(self, place: Root, transaction: str) -> Journal:
        """Hold the lock of a journal, existing or not, until the end of the batch.  Raises LockBusy."""
        key = place.path, transaction
        if key in self._busy:  # a member of the batch has waited for this lock in vain
            raise self._busy[key]
        if key not in self._held:
            try:
                self._held[key] = self._open.enter_context(journals.locked_journal(self.roots, place, transaction))
            except LockBusy as busy:
                self._busy[key] = busy
                raise
        return self._held[key]

    def hold_existing(self, place: Root, transaction: str) -> Journal | None:
        """Hold the lock of an existing journal until the end of the batch; return None without a journal."""
        key = place.path, transaction
        if key not in self._held and journals.read_journal(self.roots, place, transaction) is None:
            return None
        journal = self.hold(place, transaction)
        return journal if journal.record is not None else None

    def hold_journal_of(self, member: MemberFiles) -> Journal | None:
        """Hold the lock of a member's journal until the end of the batch; return None without a journal."""
        place = self.place_of(member.target, member.transaction, member.job)
        return self.hold_existing(place, member.transaction)
