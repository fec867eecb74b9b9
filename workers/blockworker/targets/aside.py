"""Foreign files that have the names of a committed image: put aside, never lost; and our own, taken back."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from blockworker.records.entries import MemberFiles
from blockworker.records.files import has_staging_file, look_at, same_file, stat_of, unlink
from blockworker.records.reserved import give_name
from blockworker.targets.proof import DIGESTS, MANIFEST, NotPublished


def put_aside(directory: int, member: MemberFiles) -> None:
    """Give every foreign file that has a name of the image's another one: ``NAME.replaced-RUN`` and what lay beside it.

    Raises:
        NotPublished: a file has that name, too.
    """
    for suffix in _foreign(directory, member):
        aside = f"{member.name}.replaced-{member.run}{suffix}"
        try:
            give_name(directory, member.name + suffix, aside)
        except FileExistsError:
            text = f"target {member.target}: {aside}, as the file with its name would be called, exists already"
            raise NotPublished(errno.EEXIST, text) from None


def remove_published(directory: int, member: MemberFiles) -> None:
    """Remove what a commit that came half-way has published of a member: its own files alone."""
    for suffix in ("", DIGESTS, MANIFEST):
        if _is_ours(directory, member, suffix):
            unlink(directory, member.name + suffix)


def _foreign(directory: int, member: MemberFiles) -> Iterator[str]:
    """The suffixes of the names that files have which are not the member's."""
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
    # Prepared by version 1, which says nothing of the file: it is ours where it has left its staging name.
    return found is not None and bool(staging[suffix]) and stat_of(directory, staging[suffix]) is None
