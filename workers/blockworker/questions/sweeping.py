"""``blockjobs sweep`` on a host: remove the rest of transactions unknown to the registry.

A lost registry, or a host that was abandoned and forgotten, leaves journals, staging files, cuts and reserved names
that are never settled. Rules: the registry is asked about every transaction before any file of the transaction is
touched. The files of another registry are left alone until a person says that this registry is gone. A transaction
decided as committed, by the journal beneath any root of the host, is published, not removed. Files without a journal
are judged by ``strays``.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress

from blockjobs.model.errors import BlockjobsError, JobFailed
from blockworker.host.roots import Root, Roots
from blockworker.questions.strays import Row, StrayKept, SweepQuestions, known_of, sweep_strays
from blockworker.records import journal as journals
from blockworker.records.entries import JournalRecord, MemberFiles
from blockworker.records.folder import LockBusy, folder_of
from blockworker.targets import settle
from blockworker.targets.staged import StagingBusy, open_staging

log = logging.getLogger(__name__)


def sweep_lost(
    roots: Roots, path: str, registry: SweepQuestions, *, dry: bool, now: Callable[[], float] = time.time
) -> list[Row]:
    """Sweep one write root; return a row for every removed or published item, and for every lost item left behind.

    ``dry``: nothing is changed, and the rows name the changes of a real sweep.
    """
    root = Root(path)
    rows = [
        row
        for record in journals.scan_open_journals(roots, root)
        if (row := _sweep_transaction(roots, root, record, registry, dry=dry))
    ]
    known = known_of(roots, root)
    return [*rows, *sweep_strays(roots, root, known, registry, dry=dry, now=now())]


# --- what a journal names -----------------------------------------------------------------------------


def _sweep_transaction(
    roots: Roots, root: Root, record: JournalRecord, registry: SweepQuestions, *, dry: bool
) -> Row | None:
    """The row of a transaction; None if the registry knows the transaction."""
    if registry.knows(record.transaction):
        return None
    row = {
        "what": "transaction",
        "transaction": record.transaction,
        "path": f"{folder_of(root)}/{record.transaction}.journal",
    }
    try:
        registry.expect_gone(record.registry)
        members = journals.read_members(roots, root, record.transaction)
        decision, number = _journaled_decision(roots, record, prepared=any(member.proven for member in members))
        commits = decision == "commit"
        for member in members if not commits else ():
            _expect_idle(roots, member)
        if not dry:
            for member in members:
                if commits:
                    settle.commit_member(roots, member, number)
                else:
                    settle.abort_member(roots, member, number)
            settle.clean_transaction(roots, record.transaction, root)
            log.info("transaction %s: the registry does not know it; swept", record.transaction)
        return row | {"state": "published" if commits else "removed", "text": f"{len(members)} jobs"}
    except (StrayKept, LockBusy, StagingBusy) as why:
        return row | {"state": "left", "text": str(why)}
    except (BlockjobsError, OSError) as error:
        return row | {"state": "left", "text": str(error)}


def _journaled_decision(roots: Roots, record: JournalRecord, *, prepared: bool) -> tuple[str | None, int]:
    """The decision about a transaction, from the journals beneath all roots of this host, and the decision's number.

    The journal of a root that was away, or full, during the settlement lacks the decision. ``prepared``: without
    prepared members, only an abort can have been decided.

    Raises:
        StrayKept: the transaction may have been committed beneath an unreadable root.
    """
    if record.decision is not None or not prepared:
        return record.decision, record.decision_number
    number = 0
    for path in roots.config.target_roots:
        try:
            told = journals.read_journal(roots, Root(path), record.transaction)
        except (BlockjobsError, OSError) as error:
            raise StrayKept(f"what was decided beneath write root {path} is not known: {error}") from None
        if told is not None and told.decision == "commit":
            return told.decision, told.decision_number
        number = max(number, told.decision_number if told is not None else 0)
    return None, number


def _expect_idle(roots: Roots, member: MemberFiles) -> None:
    """Check that no copy of the member runs. Raises StrayKept."""
    if member.discarded:
        return
    try:
        fd = open_staging(roots, member, member.staging, patience=0)
    except StagingBusy:
        raise StrayKept(f"a copy of job '{member.job}' is at work: end it first") from None
    except JobFailed:
        return  # gone, or another file: then no file of the copy is removed
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
