"""The files of a member as OPEN makes them: its reserved name, an empty staging file of its size, and its digests."""

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
from blockworker.records.files import unlink
from blockworker.records.reserved import reserving_name
from blockworker.system.identity import which_file
from blockworker.system.together import Durably
from blockworker.volumes.qemuimg import ImageTool


def creating_files(batch: Batch, member: MemberFiles, base: str) -> Durably[MemberFiles]:
    """Make the member's files, and the directories from below ``base`` on that they lie in; durably.

    The member as it is then: with the identity of its staging file.

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
            # An abort of another job found the directory empty, and removed it before we were in.
            if error.errno != errno.ENOENT:
                raise
            batch.forget(key)
    raise JobFailed(errno.ENOENT, f"directory {member.directory} is removed again and again")


def _create_in(roots: Roots, directory: int, member: MemberFiles) -> Durably[MemberFiles]:
    """Make the files in the open directory; what is there of an OPEN that was interrupted is made anew."""
    if member.reserved:
        yield from reserving_name(directory, member, roots.config.name, roots.registry)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as opened:
        files = []
        for name in filter(None, (member.staging, member.digests)):
            # The intent names it and no inode is recorded: what lies there is of an interrupted OPEN, nobody wrote
            # to it.
            unlink(directory, name)
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
    """Give an open file of the member's the layout that its name stands for.  The file's sync is owed.

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
    """Make the open staging file an empty image, whatever is in it."""
    image = ImageTool(fd, member.format, member.target, cage=roots.cage)
    below = _parent_of(roots, member)
    try:
        image.create(member.size, member.words, member.name, below)
    finally:
        if below is not None:
            os.close(below)


def _parent_of(roots: Roots, member: MemberFiles) -> int | None:
    """The layer that a vmdk is going to lie on: QEMU opens it by its name, and the cage lets it open this one file."""
    if member.format != "vmdk" or "-b" not in member.words:
        return None
    return roots.open_source(member.words[member.words.index("-b") + 1])
