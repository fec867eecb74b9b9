"""PREPARE and settling on a host: a staging file becomes the image, or nothing of it remains.

Every function may be called again after a crash at any point, finishes what is left and gives the same
answer.  The order: data, journal (decision), rename, directory, journal (done); each durable before the next.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.resolutions import Resolution
from blockjobs.model.volumespec import FileVolume, FormatVolume
from blockworker import kernel
from blockworker.copy.digests import root_of
from blockworker.mounts import RootAway
from blockworker.roots import Root, Roots
from blockworker.targets import cuts, owed, replaced
from blockworker.targets import journal as journals
from blockworker.targets import manifest as manifests
from blockworker.targets.aside import put_aside, remove_published
from blockworker.targets.attributes import Attributes
from blockworker.targets.files import failing, has_staging_file, remove_files, seen, stat_of, unfinished, unlink
from blockworker.targets.folder import LockBusy, release
from blockworker.targets.given import Prepared, give_as_image, give_to_image
from blockworker.targets.journal import Journal, Member, Proven, Record
from blockworker.targets.madedirs import keep_dirs, remove_made_dirs
from blockworker.targets.opening import find_member, target_path
from blockworker.targets.proof import DIGESTS, MANIFEST, NotPublished, expect_proven
from blockworker.targets.reserved import give_name, release_name
from blockworker.targets.staged import open_staging
from blockworker.volumes.soundness import finish_image

__all__ = [
    "DIGESTS", "MANIFEST", "NotPublished", "abort_job", "abort_member", "clean_transaction", "close_settled",
    "commit_job", "commit_member", "prepare_member",
]  # fmt: skip
NO_ATTRIBUTES: Final = Attributes()

log = logging.getLogger(__name__)


def prepare_member(
    roots: Roots, member: Member, ranges: Sequence[tuple[int, int]], manifest: Mapping[str, Any],
    wanted: Attributes = NO_ATTRIBUTES,
) -> Prepared:  # fmt: skip
    """Prove that the staging file is complete and durable, and write its manifest.  After this, commit cannot fail.

    ``wanted``: the owner, permissions and other attributes that the image gets, unless it replaces another one.
    What the image could not get is a warning of the result.

    Raises:
        JobFailed: the durable ranges do not cover the file, or it is not the one that was opened.
        StagingBusy: somebody still has it open for writing.
    """
    _check_covered(member, ranges)
    with failing(member.target):
        if _is_committed(roots, member):
            return Prepared()  # rung late
        fd = open_staging(roots, member, member.staging, patience=journals.PATIENCE)
        try:
            os.fsync(fd)
            if member.format and not _is_prepared(roots, member):
                finish_image(fd, FormatVolume(member.format, FileVolume(member.target)), member.size, roots.cage)
            lost = give_to_image(roots, member, fd, wanted)
            os.fsync(fd)
            image, given = seen(fd), os.fstat(fd)
            manifest = {**manifest, "image": manifests.recognize(fd)}
        finally:
            release(fd)
        replaced.expect_still_replaceable(roots, member)
        named, digests = _digests(roots, member, manifest.get("digests"), given)
        proven = {"image": image} if digests is None else {"image": image, "digests": digests}
        with _journal(roots, member) as journal:
            record, current = _known(journal, member)
            if record.decision is not None or current.discarded or journal is None:
                raise JobFailed(errno.ECANCELED, f"transaction '{member.transaction}' is already decided")
            directory = roots.open_dir(member.directory)
            try:
                if current.proven:  # this is a second PREPARE: what the first one proved stays as it is
                    expect_proven(directory, current)
                else:
                    proven["manifest"] = _write_manifest(directory, member, {**manifest, "digests": named}, given)
                    journal.put(replace(current, proven=proven))
            finally:
                os.close(directory)
    return Prepared(given.st_blocks * 512, tuple(lost))


def _write_manifest(
    directory: int, member: Member, manifest: Mapping[str, Any], image: os.stat_result
) -> Proven:  # fmt: skip
    """Write it under another name, and give it its own when all of it is on the disk."""
    name = unfinished(member)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    with os.fdopen(fd, "wb") as file:
        file.write(manifests.dump(manifest))
        file.flush()
        give_as_image(image, fd)
        os.fsync(fd)
        written = seen(fd)
    os.rename(name, member.manifest, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
    return written


def _is_prepared(roots: Roots, member: Member) -> bool:
    place = _place(roots, member)
    current = journals.read_member(roots, place, member.transaction, member.job)
    return current is not None and bool(current.proven)


def _is_committed(roots: Roots, member: Member) -> bool:
    record = journals.read(roots, _place(roots, member), member.transaction)
    return record is not None and record.decision == "commit"


def _check_covered(member: Member, ranges: Sequence[tuple[int, int]]) -> None:
    end = 0
    for start, stop in sorted(ranges):
        if start > end:
            break
        end = max(end, stop)
    if end < member.size:
        text = f"target {member.target}: only the first {end} of {member.size} bytes are known to be durable"
        raise JobFailed(errno.EIO, text)


def _digests(
    roots: Roots, member: Member, named: Mapping[str, Any] | None, image: os.stat_result
) -> tuple[dict[str, Any] | None, Proven | None]:
    """What the manifest says of the digests, with their root, and the file that they are in."""
    if not member.digests:
        return None, None
    fd = open_staging(roots, member, member.digests, patience=journals.PATIENCE)
    try:
        give_as_image(image, fd)
        os.fsync(fd)
        return (None if named is None else {**named, "root": root_of(fd)}), seen(fd)
    finally:
        release(fd)


# --- settling -----------------------------------------------------------------------------------------


def commit_job(roots: Roots, spec: JobSpec, decision_number: int) -> None:
    """``commit_member`` for a job whose journal entry is not at hand.  A lost journal is never taken for done."""
    member = find_member(roots, spec)
    if member is not None:
        commit_member(roots, member, decision_number)
        return
    path = target_path(spec)
    record = journals.read(roots, journals.place_of(roots, path, spec.transaction, spec.id), spec.transaction)
    if record is None or not record.clean or record.decision != "commit":
        text = f"target {path}: no journal on host {roots.config.name} knows its staging file"
        raise NotPublished(errno.ENOENT, text)


def commit_member(roots: Roots, member: Member, decision_number: int) -> None:
    """Publish the image, its digests and its manifest under their names.

    Raises:
        NotPublished: a foreign file has one of the names; it was not replaced.
    """
    with failing(member.target), _journal(roots, member) as journal:
        if journal is not None and _tombstone(journal) == "commit":
            return
        record, current = _known(journal, member)
        if current.discarded and current.resolution == Resolution.DISCARD:
            return
        if record.decision == "abort" or current.discarded or journal is None:
            raise JobFailed(errno.ECANCELED, f"transaction '{member.transaction}' is aborted on this host")
        if current.published:
            _remove_cut(roots, journal, current)
            return
        if current.resolution == Resolution.DISCARD:
            _discard(roots, journal, current)
            return
        directory = roots.open_dir(current.directory)
        try:
            try:
                expect_proven(directory, current)
                journal.decide("commit", decision_number)
                if current.resolution == Resolution.REPLACE:
                    put_aside(directory, current)
                _publish_image(roots, directory, current)
            except NotPublished:
                with suppress(JobFailed):  # what was copied is complete: only a person can help now, and the cut cannot
                    _remove_cut(roots, journal, current)
                raise
            if current.keep_digests:
                _publish_description(roots, directory, current)
            else:
                _remove_description(roots, directory, current)
            release_name(directory, current)
            os.fsync(directory)
        finally:
            os.close(directory)
        keep_dirs(roots, _place(roots, member), current.made_dirs)
        current = replace(current, published=True)
        journal.put(current)
        _remove_cut(roots, journal, current)


def _discard(roots: Roots, journal: Journal, member: Member) -> None:
    """Remove the files of a committed member that a user has given up, whatever of them is published already."""
    directory = roots.open_dir(member.directory)
    try:
        remove_published(directory, member)
    finally:
        os.close(directory)
    remove_files(roots, member)
    if member.cut is not None:
        cuts.remove(roots, member.cut)
    remove_made_dirs(roots, _place(roots, member), member.directory, member.made_dirs)
    journal.put(replace(member, discarded=True, cut=None))


def _remove_cut(roots: Roots, journal: Journal, member: Member) -> None:
    """Remove the cut of a published member.  Until nothing is left of the cut the member is not settled."""
    if member.cut is not None:
        cuts.remove(roots, member.cut)
        journal.put(replace(member, cut=None))


def abort_job(roots: Roots, spec: JobSpec, decision_number: int, *, opened: bool) -> None:
    """``abort_member`` for a job whose journal entry is not at hand.

    Where no journal knows it, an OPEN may be at work on it this instant: it holds the lock, so this waits for the
    lock and looks again; an OPEN that comes later is not wanted any more.  ``opened``: it was answered for, so
    its root must be there; one that never was may lie outside all roots, and where its root is away, the abort is
    noted and carried out when it is back.
    """
    try:
        root = journals.place_of(roots, target_path(spec), spec.transaction, spec.id)
        with journals.held(roots, root, spec.transaction) as journal:
            member = journal.member(spec.id)
            ended = journal.record is not None and journal.record.clean
    except RootAway:
        if opened:
            raise
        root = roots.root_of(target_path(spec), write=True)
        owed.note(roots.config, root.path, spec.transaction, decision_number)
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


def abort_member(roots: Roots, member: Member, decision_number: int) -> None:
    """Remove the member's files, and the directories that were made for them if nothing else is in them."""
    with failing(member.target), _journal(roots, member) as journal:
        record = journal.record if journal is not None else None
        current = journal.member(member.job) if journal is not None else None
        if journal is None or record is None or current is None or current.discarded:
            return
        if record.decision == "commit":
            raise JobFailed(errno.EINVAL, f"transaction '{member.transaction}' is committed on this host")
        full = False
        try:
            journal.decide("abort", decision_number)
        except OSError as error:
            if error.errno not in kernel.NO_SPACE:
                raise
            full = True  # removing the files makes room for saying so; the lock keeps everybody out meanwhile
        remove_files(roots, current)
        if current.cut is not None:
            cuts.remove(roots, current.cut)
            current = replace(current, cut=None)
        remove_made_dirs(roots, _place(roots, member), current.directory, current.made_dirs)
        if full:
            journal.decide("abort", decision_number)
        journal.put(replace(current, discarded=True))


def clean_transaction(roots: Roots, transaction: str, root: Root, *, patience: float = journals.PATIENCE) -> bool:
    """Replace the journal by a tombstone once all its members are settled; whether nothing is left to settle."""
    with journals.locked(roots, root, transaction, patience=patience) as journal:
        if journal is None or journal.record is None or journal.record.clean:
            return True
        if not journal.settled:
            return False
        journal.write(replace(journal.record, state="clean", members={}))
        return True


def close_settled(roots: Roots, root: Root) -> int:
    """Close what is settled and was left open, as whoever settled it died before he did so; how many journals."""
    closed = 0
    for record in journals.scan(roots, root):
        if record.decision is not None and all(each.settled for each in record.members.values()):
            try:
                closed += clean_transaction(roots, record.transaction, root, patience=0)
            except LockBusy:
                log.debug("transaction %s: somebody else closes it", record.transaction)
            except JobFailed as failed:  # one bad journal must not stop the others' work
                log.warning("transaction %s: it is not closed: %s", record.transaction, failed.text)
    return closed


def _place(roots: Roots, member: Member) -> Root:
    return journals.place_of(roots, member.target, member.transaction, member.job)


def _journal(roots: Roots, member: Member) -> AbstractContextManager[Journal | None]:
    return journals.locked(roots, _place(roots, member), member.transaction)


def _tombstone(journal: Journal) -> str | None:
    """The decision under a tombstone."""
    record = journal.record
    return record.decision if record is not None and record.clean else None


def _known(journal: Journal | None, member: Member) -> tuple[Record, Member]:
    record = journal.record if journal is not None else None
    current = journal.member(member.job) if journal is not None else None
    if record is None or current is None or current.uuid != member.uuid:
        raise JobFailed(errno.ENOENT, f"target {member.target}: the journal of '{member.transaction}' does not know it")
    return record, current


def _publish_image(roots: Roots, directory: int, member: Member) -> None:
    final = stat_of(directory, member.name)
    staged = has_staging_file(member, directory, member.staging)
    if has_staging_file(member, directory, member.name):
        if staged:
            unlink(directory, member.staging)  # linked, and then the power went
        return
    if not staged:
        text = f"target {member.target}: its staging file {member.staging} is gone, and was not published"
        raise NotPublished(errno.ENOENT, text)
    if not _may_replace(roots, member):
        _expect_free(directory, member)
    if final is None:
        _rename(directory, member, member.staging, member.name)
        return
    expected = member.replaces is not None and member.replaces[1] == final.st_ino and stat.S_ISREG(final.st_mode)
    if not expected or final.st_nlink != 1 or not roots.config.allow_overwrite:
        raise _taken(member, member.name)
    try:
        with replaced.owned(directory, member.target):
            os.rename(member.staging, member.name, src_dir_fd=directory, dst_dir_fd=directory)
    except JobFailed as busy:
        raise NotPublished(busy.errno, busy.text) from None


def _publish_description(roots: Roots, directory: int, member: Member) -> None:
    """Give digests and manifest their names beside the image, which has its own already."""
    if member.digests:
        _publish_beside(roots, directory, member, member.digests, member.name + DIGESTS)
    elif _may_replace(roots, member):
        unlink(directory, member.name + DIGESTS)  # they were of another image
    _publish_beside(roots, directory, member, member.manifest, member.name + MANIFEST)


def _remove_description(roots: Roots, directory: int, member: Member) -> None:
    """Leave no digests and no manifest beside the published image: neither its own, nor those of what it replaced.

    Those of the replaced image go first.  Until the member is published in the journal, a commit does all of it again.
    """
    if _may_replace(roots, member):
        for suffix in (MANIFEST, DIGESTS):
            unlink(directory, member.name + suffix)
        os.fsync(directory)
    for name in filter(None, (member.digests, member.manifest)):
        unlink(directory, name)


def _expect_free(directory: int, member: Member) -> None:
    """Before anything is visible: the names beside the image are ours to take."""
    for staging, suffix in ((member.digests, DIGESTS), (member.manifest, MANIFEST)):
        if not staging:
            continue
        staged, final = stat_of(directory, staging), stat_of(directory, member.name + suffix)
        if staged is not None and final is not None and staged.st_ino != final.st_ino:
            raise _taken(member, member.name + suffix)


def _may_replace(roots: Roots, member: Member) -> bool:
    """Whether what lies beside the image may be replaced, be the image there or not: OPEN let it pass for this."""
    return member.overwrite and roots.config.allow_overwrite


def _publish_beside(roots: Roots, directory: int, member: Member, staging: str, name: str) -> None:
    staged, final = stat_of(directory, staging), stat_of(directory, name)
    if staged is None:
        if final is None:
            raise NotPublished(errno.ENOENT, f"target {member.target}: {staging} is gone, and was not published")
    elif final is not None and final.st_ino == staged.st_ino:
        unlink(directory, staging)
    elif _may_replace(roots, member):
        os.rename(staging, name, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        _rename(directory, member, staging, name)


def _rename(directory: int, member: Member, staging: str, name: str) -> None:
    """Give a file its name, never taking it from another."""
    try:
        give_name(directory, staging, name)
    except FileExistsError:
        raise _taken(member, name) from None


def _taken(member: Member, name: str) -> NotPublished:
    path = f"{member.directory}/{name}"
    return NotPublished(errno.EEXIST, f"target {member.target}: the name {path} was taken by a file that is not ours")
