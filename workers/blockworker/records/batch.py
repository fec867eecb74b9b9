"""A batch of members: each journal is locked once for all of them, and what they have in common is found once.

A batch is short: its members are begun within seconds, and its locks are given up when all of them are through.
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
    """``roots``: those that the members' targets lie below.  ``owed``: asks the registry for which members it waits."""

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
        """What ``find`` has returned for this key, or returns now."""
        if key not in self._found:
            self._found[key] = find()
        found: T = self._found[key]
        return found

    def forget(self, key: Hashable) -> None:
        """Have it found anew: it has turned out to be otherwise."""
        self._found.pop(key, None)

    def wanted(self, job: str, alone: Callable[[], bool]) -> Callable[[], bool]:
        """Whether the registry still waits for a member: asked once for all of the batch, else by ``alone``.

        For a member that asks when every member of the batch has taken its lock: what is made without one could be
        made behind an abort's back.
        """
        owed = self._owed
        return alone if owed is None else lambda: job in self.once("owed", owed)

    def place_of(self, target: str, transaction: str, job: str) -> Root:
        """``journal.place_of``: where only one place has a journal of the transaction, it is the one for every job."""
        key = ("place", os.path.dirname(target), transaction)
        if (only := self.once(key, lambda: journals.only_place(self.roots, target, transaction))) is not None:
            return only
        return journals.place_of(self.roots, target, transaction, job)

    def view(self, target: str, transaction: str, job: str) -> JournalView:
        """The journal of a job without its lock, as this batch saw it first; members' own files are read anew."""
        place = self.place_of(target, transaction, job)
        return self.once(
            ("view", place, transaction),
            lambda: self._open.enter_context(journals.looked_into(self.roots, place, transaction)),
        )

    def find_member(self, target: str, transaction: str, job: str) -> MemberFiles | None:
        """What its journal says of a job, without its lock."""
        return self.view(target, transaction, job).member(job)

    def hold(self, place: Root, transaction: str) -> Journal:
        """The journal with its lock held, until the batch is over.  Raises LockBusy."""
        key = place.path, transaction
        if key in self._busy:  # one of the batch has waited for it
            raise self._busy[key]
        if key not in self._held:
            try:
                self._held[key] = self._open.enter_context(journals.held(self.roots, place, transaction))
            except LockBusy as busy:
                self._busy[key] = busy
                raise
        return self._held[key]

    def hold_existing(self, place: Root, transaction: str) -> Journal | None:
        """The same; None if there is no journal, and then nothing is made."""
        key = place.path, transaction
        if key not in self._held and journals.read(self.roots, place, transaction) is None:
            return None
        journal = self.hold(place, transaction)
        return journal if journal.record is not None else None

    def hold_journal_of(self, member: MemberFiles) -> Journal | None:
        """The journal of a member with its lock held."""
        place = self.place_of(member.target, member.transaction, member.job)
        return self.hold_existing(place, member.transaction)
