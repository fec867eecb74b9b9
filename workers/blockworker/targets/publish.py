"""The renames that publish a prepared image together with its digests and its manifest.

The image is renamed first: a reader who sees a manifest finds the manifest's image.  No rename replaces a foreign file;
an image that may replace a file replaces exactly the file that OPEN saw.  Every function may be called again after a
crash at any point.  The caller has recorded the decision to commit in the journal, and syncs the directory afterwards.
"""

from __future__ import annotations

import errno
import os
import stat

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Roots
from blockworker.records.entries import MemberFiles
from blockworker.records.files import has_staging_file, stat_of, unlink_if_exists
from blockworker.records.reserved import give_name
from blockworker.targets import replaced
from blockworker.targets.proof import DIGESTS, MANIFEST, NotPublished


def publish_image(roots: Roots, directory: int, member: MemberFiles) -> None:
    """Give the staging file the name of the target.  ``directory``: the open directory of both names.

    Raises:
        NotPublished: the staging file is gone, or a name is taken by a file that must not be replaced.
        OSError: the file system refuses the rename.
    """
    final = stat_of(directory, member.name)
    staged = has_staging_file(member, directory, member.staging)
    if has_staging_file(member, directory, member.name):
        if staged:
            unlink_if_exists(directory, member.staging)  # the power failed between link and unlink
        return
    if not staged:
        raise NotPublished(errno.ENOENT, _why_not_staged(directory, member))
    _expect_free(directory, member, replacing=_may_replace(roots, member))
    if final is None:
        _rename_to_free_name(directory, member, member.staging, member.name)
        return
    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1 or not roots.config.allow_overwrite:
        raise _taken_name_error(member, member.name)
    try:
        with replaced.locked_against_qemu(directory, member.target):
            os.rename(member.staging, member.name, src_dir_fd=directory, dst_dir_fd=directory)
    except JobFailed as busy:
        raise NotPublished(busy.errno, busy.text) from None


def _why_not_staged(directory: int, member: MemberFiles) -> str:
    what = f"target {member.target}: its staging file {member.staging}"
    if stat_of(directory, member.staging) is None:
        return f"{what} is gone, and was not published"
    return (
        f"{what} is another file than the one that was opened, or on another file system: "
        f"`blockjobs resolve {member.job} --discard` gives the image up"
    )


def publish_description(roots: Roots, directory: int, member: MemberFiles) -> None:
    """Give digests and manifest their names beside the image, which already has its name.

    Raises:
        NotPublished: a file is gone, or its name is taken by a file that must not be replaced.
        OSError: the file system refuses the rename.
    """
    if member.digests:
        _publish_beside(roots, directory, member, member.digests, member.name + DIGESTS)
    elif _may_replace(roots, member):
        unlink_if_exists(directory, member.name + DIGESTS)  # the replaced image's digests
    _publish_beside(roots, directory, member, member.manifest, member.name + MANIFEST)


def remove_description(roots: Roots, directory: int, member: MemberFiles) -> None:
    """Remove digests and manifest beside the published image: its own, and those of the image it replaced.

    The files of the replaced image go first.  Until the journal says that the member is published, a commit repeats
    every step.
    """
    if _may_replace(roots, member):
        for suffix in (MANIFEST, DIGESTS):
            unlink_if_exists(directory, member.name + suffix)
        os.fsync(directory)
    for name in filter(None, (member.digests, member.manifest)):
        unlink_if_exists(directory, name)


def _expect_free(directory: int, member: MemberFiles, *, replacing: bool) -> None:
    """Expect, before any file is visible, that the names beside the image are free for the image's files.

    ``replacing``: a name may belong to another regular file; no rename replaces a directory.
    """
    for staging, suffix in ((member.digests, DIGESTS), (member.manifest, MANIFEST)):
        final = stat_of(directory, member.name + suffix)
        if final is None or (replacing and stat.S_ISREG(final.st_mode)) or not (staging or replacing):
            continue
        staged = stat_of(directory, staging) if staging else None
        if replacing or (staged is not None and staged.st_ino != final.st_ino):
            raise _taken_name_error(member, member.name + suffix)


def _may_replace(roots: Roots, member: MemberFiles) -> bool:
    """Whether the files beside the image may be replaced, whether or not the image exists: OPEN allows the same."""
    return member.overwrite and roots.config.allow_overwrite


def _publish_beside(roots: Roots, directory: int, member: MemberFiles, staging: str, name: str) -> None:
    staged, final = stat_of(directory, staging), stat_of(directory, name)
    if staged is None:
        if final is None:
            raise NotPublished(errno.ENOENT, f"target {member.target}: {staging} is gone, and was not published")
    elif final is not None and final.st_ino == staged.st_ino:
        unlink_if_exists(directory, staging)
    elif _may_replace(roots, member):
        os.rename(staging, name, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        _rename_to_free_name(directory, member, staging, name)


def _rename_to_free_name(directory: int, member: MemberFiles, staging: str, name: str) -> None:
    """Rename a file, never over another file."""
    try:
        give_name(directory, staging, name)
    except FileExistsError:
        raise _taken_name_error(member, name) from None


def _taken_name_error(member: MemberFiles, name: str) -> NotPublished:
    path = f"{member.directory}/{name}"
    return NotPublished(errno.EEXIST, f"target {member.target}: the name {path} was taken by a file that is not ours")
