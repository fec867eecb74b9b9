"""Settling on a host: commit publishes a prepared image, abort removes the image's files, clean closes the journal.

Every function may be called again after a crash at any point, completes the work and gives the same answer.  The order:
journal (decision), renames, directory, journal (done); each step is durable before the next.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from dataclasses import replace
from functools import partial

from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.resolutions import Resolution
from blockjobs.registry.each import Each
from blockworker.cuts import cut_files
from blockworker.host.mounts import RootAway
from blockworker.host.roots import Root, Roots
from blockworker.records import journal as journals
from blockworker.records import owed
from blockworker.records.batch import Batch
from blockworker.records.entries import MemberFiles
from blockworker.records.files import known_for_good, remove_files, target_errors_as_failure
from blockworker.records.folder import LockBusy
from blockworker.records.journal import Journal
from blockworker.records.member_journal import known_member, lock_journal_of, place_of_member
from blockworker.records.reserved import release_name
from blockworker.system import kernel
from blockworker.system.together import Durably, do_alone
from blockworker.targets.aside import put_aside, remove_published
from blockworker.targets.madedirs import keep_dirs, remove_made_dirs
from blockworker.targets.opening import target_path
from blockworker.targets.proof import NotPublished, expect_proven
from blockworker.targets.publish import publish_description, publish_image, remove_description

log = logging.getLogger(__name__)


def commit_job(roots: Roots, spec: JobSpec, decision_number: int) -> None:
    """Run ``committing_job`` for a single job."""
    with Batch(roots) as batch:
        do_alone(committing_job(batch, spec, decision_number))


def committing_job(batch: Batch, spec: JobSpec, decision_number: int) -> Durably[None]:
    """Run ``committing_member`` for a job without its journal entry at hand.  A lost journal never counts as done."""
    path = target_path(spec)
    view = batch.view(path, spec.transaction, spec.id)
    if (member := view.member(spec.id)) is not None:
        yield from committing_member(batch, member, decision_number)
        return
    if view.record is None or not view.record.clean or view.record.decision != "commit":
        text = f"target {path}: no journal on host {batch.roots.config.name} knows its staging file"
        raise NotPublished(errno.ENOENT, text)


def commit_member(roots: Roots, member: MemberFiles, decision_number: int) -> None:
    """Run ``committing_member`` for a single member."""
    with Batch(roots) as batch:
        do_alone(committing_member(batch, member, decision_number))


def committing_member(batch: Batch, member: MemberFiles, decision_number: int) -> Durably[None]:
    """Publish the image, its digests and its manifest under their names.

    Raises:
        NotPublished: a foreign file has a name of the image, and was not replaced.
    """
    roots = batch.roots
    with target_errors_as_failure(member.target):
        journal = batch.hold_journal_of(member)
        if journal is not None and _tombstone_decision(journal) == "commit":
            return
        record, current = known_member(journal, member)
        if current.discarded and current.resolution == Resolution.DISCARD:
            return
        if record.decision == "abort" or current.discarded or journal is None:
            raise JobFailed(errno.ECANCELED, f"transaction '{member.transaction}' is aborted on this host")
        if current.published:
            _remove_cut(roots, journal, current)
            return
        if current.resolution == Resolution.DISCARD:
            _discard_member(roots, journal, current)
            return
        directory = roots.open_dir(current.directory)
        try:
            try:
                expect_proven(directory, current)
                if (known := known_for_good(directory, current)) is not current:
                    yield from journal.putting(known)
                    current = known
                journal.decide("commit", decision_number)
                if current.resolution == Resolution.REPLACE:
                    put_aside(directory, current)
                publish_image(roots, directory, current)
            except NotPublished:
                with suppress(JobFailed):  # the copy is complete and needs a person: the cut is of no more use
                    _remove_cut(roots, journal, current)
                raise
            if current.keep_digests:
                publish_description(roots, directory, current)
            else:
                remove_description(roots, directory, current)
            release_name(directory, current)
            yield (directory,)
        finally:
            os.close(directory)
        place = batch.place_of(member.target, member.transaction, member.job)
        batch.once(("kept", place, current.made_dirs), lambda: keep_dirs(roots, place, current.made_dirs))
        current = replace(current, published=True)
        yield from journal.putting(current)
        _remove_cut(roots, journal, current)


def _discard_member(roots: Roots, journal: Journal, member: MemberFiles) -> None:
    """Remove the files of a committed member that a user has discarded, including files published already."""
    directory = roots.open_dir(member.directory)
    try:
        remove_published(directory, member)
    finally:
        os.close(directory)
    remove_files(roots, member)
    if member.cut is not None:
        cut_files.remove_cut(roots, member.cut)
    remove_made_dirs(roots, place_of_member(roots, member), member.directory, member.made_dirs)
    journal.put(replace(member, discarded=True, cut=None))


def _remove_cut(roots: Roots, journal: Journal, member: MemberFiles) -> None:
    """Remove the cut of a published member; the member counts as settled only afterwards."""
    if member.cut is not None:
        cut_files.remove_cut(roots, member.cut)
        journal.put(replace(member, cut=None))


def abort_job(roots: Roots, spec: JobSpec, decision_number: int, *, opened: bool) -> None:
    """Run ``abort_member`` for a job without its journal entry at hand.

    If no journal knows the job, an OPEN of the job may be running and holds the lock: this function takes the lock and
    reads the journal again; a later OPEN is not wanted any more.  ``opened``: the registry has the answer of the job's
    OPEN, so the root must exist.  A job without an answer may lie outside every root; if its root is away, the abort is
    noted and carried out once the root is back.
    """
    try:
        root = journals.journal_root(roots, target_path(spec), spec.transaction, spec.id)
        with journals.locked_journal(roots, root, spec.transaction) as journal:
            member = journal.member(spec.id)
            ended = journal.record is not None and journal.record.clean
    except RootAway:
        if opened:
            raise
        root = roots.root_of(target_path(spec), write=True)
        owed.note_owed_abort(roots.config, root.path, spec.transaction, decision_number)
        return
    except (JobFailed, OSError):
        if opened:
            raise
        return
    if member is not None:
        abort_member(roots, member, decision_number)
    elif opened and not ended:
        text = (
            f"target {target_path(spec)}: no journal on host {roots.config.name} knows its staging file: the disk and "
            f"the write root that it was opened beneath were expected"
        )
        raise JobFailed(errno.ENOENT, text)


def abort_member(roots: Roots, member: MemberFiles, decision_number: int) -> None:
    """Remove the member's files, and the directories that were made for the files and are empty.

    A commit carried out here by an earlier decision stands, and is completed: the registry was restored from an older
    state, and a user has accepted the loss of the decision.

    Raises:
        JobFailed: the transaction is committed by this very decision, or by a later decision.
    """
    with target_errors_as_failure(member.target), lock_journal_of(roots, member) as journal:
        record = journal.record if journal is not None else None
        current = journal.member(member.job) if journal is not None else None
        if journal is None or record is None or current is None or current.discarded:
            return
        if record.decision != "commit":
            _abort_locked_member(roots, journal, current, decision_number)
            return
    if decision_number <= record.decision_number:
        raise JobFailed(errno.EINVAL, f"transaction '{member.transaction}' is committed on this host")
    log.warning(
        "job %s: its transaction is committed here by decision %d, which the registry has lost: that stands, and "
        "decision %d, to abort it, removes nothing",
        member.job,
        record.decision_number,
        decision_number,
    )
    commit_member(roots, current, record.decision_number)


def _abort_locked_member(roots: Roots, journal: Journal, member: MemberFiles, decision_number: int) -> None:
    """Abort a member under the lock of its journal."""
    full = False
    try:
        journal.decide("abort", decision_number)
    except OSError as error:
        if error.errno not in kernel.NO_SPACE:
            raise
        full = True  # removing the files makes room for the record; the lock keeps other processes out
    remove_files(roots, member)
    if member.cut is not None:
        cut_files.remove_cut(roots, member.cut)
    remove_made_dirs(roots, place_of_member(roots, member), member.directory, member.made_dirs)
    if full:
        journal.decide("abort", decision_number)
    journal.put(replace(member, discarded=True, cut=None))


def clean_transaction(roots: Roots, transaction: str, root: Root, *, patience: float = journals.PATIENCE) -> bool:
    """Replace the journal by a tombstone once its members are settled; return whether every member is settled."""
    with journals.locked_open_journal(roots, root, transaction, patience=patience) as journal:
        if journal is None or journal.record is None or journal.record.clean:
            return True
        if not journal.settled:
            return False
        journal.write(replace(journal.record, state="clean", members={}))
        return True


def close_settled(roots: Roots, root: Root, each: Each = journals.call_or_log) -> int:
    """Close settled journals whose worker died before closing the journal; return the number closed.

    ``each``: calls the work on a journal, so that a bad journal does not stop the work on the rest.
    """
    closed = 0
    for record in journals.scan_open_journals(roots, root, each):
        if record.decision is not None and all(member.settled for member in record.members.values()):
            item = journals.item_of(root, record.transaction)
            closed += bool(each(item, partial(_close_one, roots, root, record.transaction)))
    return closed


def _close_one(roots: Roots, root: Root, transaction: str) -> bool:
    try:
        return clean_transaction(roots, transaction, root, patience=0)
    except LockBusy:
        log.debug("transaction %s: somebody else closes it", transaction)
        return False


def _tombstone_decision(journal: Journal) -> str | None:
    """The decision under a tombstone; None for an open journal."""
    record = journal.record
    return record.decision if record is not None and record.clean else None
