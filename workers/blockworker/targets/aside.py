"""Foreign files with the names of a committed image are renamed, never lost; the image's own files are removed."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from blockworker.records.entries import MemberFiles
from blockworker.records.files import has_staging_file, look_at, same_file, stat_of, unlink_if_exists
from blockworker.records.reserved import give_name
from blockworker.targets.proof import DIGESTS, MANIFEST, NotPublished


def put_aside(directory: int, member: MemberFiles) -> None:
    """Rename every foreign file that has a name of the image to ``NAME.replaced-RUN``, plus the file's suffix.

    Raises:
        NotPublished: a file with the new name exists.
    """
    for suffix in _foreign_suffixes(directory, member):
        aside = f"{member.name}.replaced-{member.run}{suffix}"
        try:
            give_name(directory, member.name + suffix, aside)
        except FileExistsError:
            text = f"target {member.target}: {aside}, as the file with its name would be called, exists already"
            raise NotPublished(errno.EEXIST, text) from None


def remove_published(directory: int, member: MemberFiles) -> None:
    """Remove the files that an incomplete commit has published, and only the member's own files."""
    for suffix in ("", DIGESTS, MANIFEST):
        if _is_ours(directory, member, suffix):
            unlink_if_exists(directory, member.name + suffix)


def _foreign_suffixes(directory: int, member: MemberFiles) -> Iterator[str]:
    """The suffixes of the image's names that belong to foreign files."""
    for suffix in ("", DIGESTS, MANIFEST):
        if stat_of(directory, member.name + suffix) is not None and not _is_ours(directory, member, suffix):
            yield suffix


def _is_ours(directory: int, member: MemberFiles, suffix: str) -> bool:
    name, staging = member.name + suffix, {"": member.staging, DIGESTS: member.digests, MANIFEST: member.manifest}
    if not suffix:
        return has_staging_file(member, directory, name)
    proven = member.proven.get({DIGESTS: "digests", MANIFEST: "manifest"}[suffix])
    found = look_at(directory, name)
    if proven is not None:
        return found is not None and same_file(found.which, proven.which)
    # A member prepared by version 1 has no record of its files: the file is ours if its staging name is free.
    return found is not None and bool(staging[suffix]) and stat_of(directory, staging[suffix]) is None
