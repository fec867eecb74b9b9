"""The files of a member as OPEN makes them: a reservation of the name, an empty staging file of full size, digests."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from dataclasses import replace

from blockjobs.model.errors import JobFailed
from blockjobs.process.clock import read_boot_id
from blockworker.copy.digests import digest_size
from blockworker.host.roots import Roots
from blockworker.records.batch import Batch
from blockworker.records.entries import MemberFiles
from blockworker.records.files import unlink_if_exists
from blockworker.records.reserved import reserving_name
from blockworker.system.identity import which_file
from blockworker.system.together import Durably
from blockworker.volumes.qemuimg import ImageTool


def creating_files(batch: Batch, member: MemberFiles, base: str) -> Durably[MemberFiles]:
    """Make the member's files, and the missing directories below ``base``, durably.

    Returns the member with the identity of its staging file.

    Raises:
        JobFailed: another job has reserved the name, or the kernel refuses a directory.
        OSError: the kernel refuses a file.
    """
    roots, key = batch.roots, ("made", base, member.directory, member.made_dirs)
    for _ in range(10):
        batch.once(key, lambda: roots.make_dirs(base, member.directory, member.made_dirs))
        try:
            directory = roots.open_dir(member.directory)
            try:
                return (yield from _create_in(roots, directory, member))
            finally:
                os.close(directory)
        except (JobFailed, FileNotFoundError) as error:
            # An abort of another job found the directory empty, and removed the directory before this job used it.
            if error.errno != errno.ENOENT:
                raise
            batch.forget(key)
    raise JobFailed(errno.ENOENT, f"directory {member.directory} is removed again and again")


def _create_in(roots: Roots, directory: int, member: MemberFiles) -> Durably[MemberFiles]:
    """Make the files in the open directory; files of an interrupted OPEN are made anew."""
    if member.reserved:
        yield from reserving_name(directory, member, roots.config.name, roots.registry)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as opened:
        files = []
        for name in filter(None, (member.staging, member.digests)):
            # The journal names the file without an inode: a file here is from an interrupted OPEN, and was never
            # written.
            unlink_if_exists(directory, name)
            files.append(fd := os.open(name, flags, 0o600, dir_fd=directory))
            opened.callback(os.close, fd)
            if name == member.staging:
                st = os.fstat(fd)
                member = replace(member, which=which_file(fd), dev=st.st_dev, ino=st.st_ino, boot=read_boot_id())
            lay_out_file(roots, fd, name, member)
        yield files
    yield (directory,)
    return member


def lay_out_file(roots: Roots, fd: int, name: str, member: MemberFiles) -> None:
    """Give an open file of the member the layout of its name's kind.  The caller syncs the file.

    Raises:
        JobFailed: QEMU's tool cannot make the image.
        OSError: the file system refuses the size.
    """
    if name == member.digests:
        os.ftruncate(fd, digest_size(member.size))
    elif member.format:
        _lay_out_image(roots, fd, member)
    else:
        os.ftruncate(fd, member.size)


def _lay_out_image(roots: Roots, fd: int, member: MemberFiles) -> None:
    """Make the open staging file an empty image, whatever its content."""
    image = ImageTool(fd, member.format, member.target, cage=roots.cage)
    below = _parent_of(roots, member)
    try:
        image.create(member.size, member.words, member.name, below)
    finally:
        if below is not None:
            os.close(below)


def _parent_of(roots: Roots, member: MemberFiles) -> int | None:
    """Open the layer of a vmdk: QEMU opens the layer by name, and the cage allows this single file."""
    if member.format != "vmdk" or "-b" not in member.words:
        return None
    return roots.open_source(member.words[member.words.index("-b") + 1])
