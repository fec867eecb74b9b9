"""The check, before a file of a member is renamed, that every file is unchanged since PREPARE has proven the file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from blockjobs.model.errors import BadInput, JobFailed
from blockworker.records.files import has_staging_file, look_at, same_file, stat_of
from blockworker.records.journal import MemberFiles, Proven
from blockworker.targets import manifest as manifests

DIGESTS: Final = ".blake3"  # beside the image
MANIFEST: Final = ".manifest.json"


class NotPublished(JobFailed):
    """The member is committed and cannot be published: staging file and locks stay until a user resolves the member."""


def expect_proven(directory: int, member: MemberFiles) -> None:
    """Check every file of a prepared member, under the file's current name; change no file.

    Raises:
        NotPublished: a file is missing, was replaced, has another size, or is no whole manifest.
        JobFailed: the member was never prepared.
    """
    if not member.keep_digests and has_staging_file(member, directory, member.name):
        return  # published by an earlier commit: the digests and the manifest may be gone
    if member.proven:
        for what, staging, final in _published_names(member):
            if what in member.proven:
                _expect_file(directory, member, member.proven[what], staging, final)
    else:
        _expect_prepared(directory, member)
    _expect_manifest(directory, member)


def _published_names(member: MemberFiles) -> Iterator[tuple[str, str, str]]:
    """Each file's kind, its name before publishing, and its name afterwards."""
    yield "image", member.staging, member.name
    yield "digests", member.digests, member.name + DIGESTS
    yield "manifest", member.manifest, member.name + MANIFEST


def _expect_file(directory: int, member: MemberFiles, proven: Proven, staging: str, final: str) -> None:
    found = look_at(directory, staging)
    if found is None and (found := look_at(directory, final)) is not None and not same_file(found.which, proven.which):
        found = None  # a foreign file with the final name
    if found is None:
        text = f"target {member.target}: its staging file {staging} is gone, and was not published"
        raise NotPublished(errno.ENOENT, text)
    if not same_file(found.which, proven.which):
        text = f"target {member.target}: its staging file {staging} is another file than the one that was prepared"
        raise NotPublished(errno.ESTALE, text)
    if found.size != proven.size:
        text = f"{staging} has {found.size} bytes, {proven.size} were expected: it was changed since it was prepared"
        raise NotPublished(errno.ESTALE, f"target {member.target}: {text}")


def _expect_prepared(directory: int, member: MemberFiles) -> None:
    """Check a member prepared by version 1, whose journals have no proof.

    A commit without a PREPARE would be our bug, and must not make an incomplete file visible.
    """
    if stat_of(directory, member.manifest) is None and stat_of(directory, member.name + MANIFEST) is None:
        raise JobFailed(errno.ENOENT, f"target {member.target} was never prepared: its manifest is missing")
    try:
        fd = os.open(member.staging, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return  # renamed by an earlier commit
    try:
        os.fsync(fd)  # costs nothing after PREPARE, and keeps bytes that are not durable from being renamed
        if not member.format and has_staging_file(member, directory, member.staging):
            _expect_size(member, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _expect_size(member: MemberFiles, size: int) -> None:
    if size != member.size:
        text = f"{member.staging} has {size} bytes, {member.size} were expected: it was changed since it was prepared"
        raise NotPublished(errno.ESTALE, f"target {member.target}: {text}")


def _expect_manifest(directory: int, member: MemberFiles) -> None:
    """Expect a whole manifest under the manifest's current name."""
    name = member.manifest if stat_of(directory, member.manifest) is not None else member.name + MANIFEST
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        manifests.load_manifest(f"{member.directory}/{name}", lambda _: os.open(name, flags, dir_fd=directory))
    except BadInput as bad:
        raise NotPublished(errno.EBADMSG, f"target {member.target}: {bad}") from None
