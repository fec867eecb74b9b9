"""Members of a journal: the first few in the journal itself, and every further member in a separate file.

The file is ``ROOT/.blockjobs/TRANSACTION.members/JOB``: the cost of a member does not grow with the number of members.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from blockjobs.model import ids
from blockworker.records.entries import JournalRecord, MemberFiles
from blockworker.system.sparefile import read_text


@contextmanager
def member_files(folder: int, transaction: str, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder of the members' files; -1 without a folder, unless ``make`` is true."""
    name = f"{transaction}.members"
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
            os.fsync(folder)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        fd = -1
    try:
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)


def has_file(files: int, job: str) -> bool:
    """Whether a job has a separate file."""
    try:
        os.stat(job, dir_fd=files, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove_member_files(folder: int, transaction: str) -> None:
    """Remove the files of the members, and the folder.  The sync of ``folder`` is left to the caller."""
    with member_files(folder, transaction) as files:
        if files < 0:
            return
        for name in os.listdir(files):
            os.unlink(name, dir_fd=files)
    os.rmdir(f"{transaction}.members", dir_fd=folder)


def member_of(folder: int, record: JournalRecord | None, transaction: str, job: str, path: str) -> MemberFiles | None:
    """Find a job's member in the journal ``record`` of this folder; messages name the journal by ``path``."""
    if record is None or record.clean:
        return None
    if (member := record.members.get(job)) is not None:
        return member
    ids.job_id(job)  # the id becomes a file name
    with member_files(folder, transaction) as files:
        text = read_text(files, job) if files >= 0 else None
    return None if text is None else MemberFiles.parse(text, f"{path}: {job}")


def members_of(folder: int, record: JournalRecord | None, transaction: str, path: str) -> Iterator[MemberFiles]:
    """Iterate over the members of the journal ``record`` of this folder, reading a file at a time."""
    if record is None or record.clean:
        return
    yield from record.members.values()
    with member_files(folder, transaction) as files:
        for job in sorted(os.listdir(files)) if files >= 0 else ():
            if job.startswith(".") or job in record.members:
                continue
            if (text := read_text(files, job)) is not None:
                yield MemberFiles.parse(text, f"{path}: {job}")
