"""PREPARE on a host: prove that a staging file is complete and durable, and write the image's manifest.

A repeated call after a crash completes the work.  A second PREPARE does not change the proof of the first: COMMIT
compares every file with the proof before giving a file its final name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import FileVolume, FormatVolume
from blockworker.copy.digests import root_of
from blockworker.host.roots import Roots
from blockworker.records import journal as journals
from blockworker.records.batch import Batch
from blockworker.records.entries import MemberFiles, Proven
from blockworker.records.files import proof_of_file, target_errors_as_failure, unfinished_manifest
from blockworker.records.folder import release_folder_lock
from blockworker.records.journal import JournalView
from blockworker.records.member_journal import known_member
from blockworker.system.together import Durably, do_alone
from blockworker.targets import manifest as manifests
from blockworker.targets import replaced
from blockworker.targets.attributes import Attributes
from blockworker.targets.given import Prepared, give_as_image, give_to_image
from blockworker.targets.proof import expect_proven
from blockworker.targets.staged import open_staging
from blockworker.volumes.soundness import finish_image

NO_ATTRIBUTES: Final = Attributes()


def prepare_member(
    roots: Roots,
    member: MemberFiles,
    ranges: Sequence[tuple[int, int]],
    manifest: Mapping[str, Any],
    wanted: Attributes = NO_ATTRIBUTES,
) -> Prepared:
    """Run ``preparing_member`` for a single member."""
    with Batch(roots) as batch:
        return do_alone(preparing_member(batch, member, ranges, manifest, wanted))


def preparing_member(
    batch: Batch,
    member: MemberFiles,
    ranges: Sequence[tuple[int, int]],
    manifest: Mapping[str, Any],
    wanted: Attributes = NO_ATTRIBUTES,
) -> Durably[Prepared]:
    """Prove that the staging file is complete and durable, and write its manifest.  Afterwards a commit cannot fail.

    ``wanted``: the owner, permissions and other attributes of the image, unless the image replaces a file.  A warning
    in the result names each attribute that the image could not get.

    Raises:
        JobFailed: the durable ranges do not cover the file, or the file is not the file that was opened.
        StagingBusy: a process has the staging file open for writing.
    """
    _check_covered(member, ranges)
    roots = batch.roots
    with target_errors_as_failure(member.target):
        before = batch.view(member.target, member.transaction, member.job)
        if before.record is not None and before.record.decision == "commit":
            return Prepared()  # a late repetition
        fd = open_staging(roots, member, member.staging, patience=journals.PATIENCE)
        try:
            os.fsync(fd)
            if member.format and not _is_prepared(before, member):
                finish_image(fd, FormatVolume(member.format, FileVolume(member.target)), member.size, roots.cage)
            lost = give_to_image(roots, member, fd, wanted)
            yield (fd,)
            image, given = proof_of_file(fd), os.fstat(fd)
            manifest = {**manifest, "image": manifests.image_file_identity(fd)}
        finally:
            release_folder_lock(fd)
        replaced.expect_still_replaceable(roots, member)
        named, digests = yield from _prove_digests(roots, member, manifest.get("digests"), given)
        proven = {"image": image} if digests is None else {"image": image, "digests": digests}
        journal = batch.hold_journal_of(member)
        record, current = known_member(journal, member)
        if record.decision == "commit":
            return Prepared()  # a late repetition
        if record.decision is not None or current.discarded or journal is None:
            raise JobFailed(errno.ECANCELED, f"transaction '{member.transaction}' is already decided")
        directory = roots.open_dir(member.directory)
        try:
            if current.proven:  # a second PREPARE: the proof of the first stays unchanged
                expect_proven(directory, current)
            else:
                wanted_manifest = {**manifest, "digests": named}
                proven["manifest"] = yield from _write_manifest(directory, member, wanted_manifest, given)
                yield from journal.putting(replace(current, proven=proven))
        finally:
            os.close(directory)
    return Prepared(given.st_blocks * 512, tuple(lost))


def _write_manifest(
    directory: int, member: MemberFiles, manifest: Mapping[str, Any], image: os.stat_result
) -> Durably[Proven]:
    """Write the manifest under a temporary name, and rename the file once its content is durable."""
    name = unfinished_manifest(member)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    with os.fdopen(fd, "wb") as file:
        file.write(manifests.manifest_text(manifest))
        file.flush()
        give_as_image(image, fd)
        yield (fd,)
        written = proof_of_file(fd)
    os.rename(name, member.manifest, src_dir_fd=directory, dst_dir_fd=directory)
    yield (directory,)
    return written


def _is_prepared(view: JournalView, member: MemberFiles) -> bool:
    current = view.member(member.job)
    return current is not None and bool(current.proven)


def _check_covered(member: MemberFiles, ranges: Sequence[tuple[int, int]]) -> None:
    end = 0
    for start, stop in sorted(ranges):
        if start > end:
            break
        end = max(end, stop)
    if end < member.size:
        text = f"target {member.target}: only the first {end} of {member.size} bytes are known to be durable"
        raise JobFailed(errno.EIO, text)


def _prove_digests(
    roots: Roots, member: MemberFiles, named: Mapping[str, Any] | None, image: os.stat_result
) -> Durably[tuple[dict[str, Any] | None, Proven | None]]:
    """The manifest's entry for the digests, with their root, and the proof of the digests' file."""
    if not member.digests:
        return None, None
    fd = open_staging(roots, member, member.digests, patience=journals.PATIENCE)
    try:
        give_as_image(image, fd)
        yield (fd,)
        return (None if named is None else {**named, "root": root_of(fd)}), proof_of_file(fd)
    finally:
        release_folder_lock(fd)
