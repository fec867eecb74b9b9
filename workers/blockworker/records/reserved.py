"""The name of a target, kept free from its OPEN on: two hosts that see one directory meet here.

``.NAME.reserved`` is made beside the target, never over one that is there, and says whose it is: JSON with run, job,
host, transaction, the uuid of the staging file and the registry.  The journal notes the member before its reservation
is made, and settling removes it; NAME itself stays free until the commit.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockworker.records.entries import MemberFiles
from blockworker.system import kernel
from blockworker.system.sparefile import read_text
from blockworker.system.together import Durably

_LARGEST: Final = 1 << 16  # bytes; one is of a few hundred, and whoever shares the directory may have written anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Whose name it is; all empty where the file cannot be read."""

    run: str = ""
    job: str = ""
    host: str = ""
    transaction: str = ""
    uuid: str = ""
    registry: str = ""

    @property
    def title(self) -> str:
        if not self.job:
            return "somebody whose reservation cannot be read"
        return f"job '{self.job}' of host '{self.host}' (transaction '{self.transaction}')"


def reserved_name(name: str) -> str:
    return f".{name}.reserved"


def reserving_name(directory: int, member: MemberFiles, host: str, registry: str = "") -> Durably[None]:
    """Reserve the name of a target; again is harmless.  The directory's sync is owed.

    Raises:
        JobFailed: another job has it (EBUSY).
    """
    name, draft = reserved_name(member.name), f".{member.name}.{member.uuid[:8]}.reserved"
    if (holder := read_reservation(directory, name)) is not None and holder.uuid == member.uuid:
        _unlink(directory, draft)
        return
    keys = Reservation(
        run=member.run, job=member.job, host=host, transaction=member.transaction, uuid=member.uuid, registry=registry
    )  # fmt: skip
    content = json.dumps({each: getattr(keys, each) for each in Reservation.__slots__}).encode() + b"\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(content)
        file.flush()
        yield (file.fileno(),)
    try:
        give_name(directory, draft, name)
    except FileExistsError:
        _unlink(directory, draft)
        holder = read_reservation(directory, name) or Reservation()
        path = f"{member.directory}/{name}"
        text = f"target {member.target} is reserved by {holder.title}, which is not over: {path}"
        raise JobFailed(errno.EBUSY, text) from None


def release_name(directory: int, member: MemberFiles) -> None:
    """Remove the reservation of a member, if it has one.  The directory's sync is owed.

    Raises OSError: nobody can read now whose it is, so that it would stay, and keep its name from everybody.
    """
    if not member.reserved:
        return
    holder = read_reservation(directory, member.reserved, certain=True)
    if holder is not None and holder.uuid == member.uuid:
        _unlink(directory, member.reserved)
    _unlink(directory, f"{member.reserved.removesuffix('.reserved')}.{member.uuid[:8]}.reserved")


def read_reservation(directory: int, name: str, *, certain: bool = False) -> Reservation | None:
    """Whose a reservation is; None where there is none, an empty one where it cannot be read.

    ``certain``: a file that cannot be read now, and may be ours, raises OSError.
    """
    try:
        text = read_text(directory, name, _LARGEST)
    except OSError as error:
        if certain and error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        return Reservation()
    if text is None:
        return None
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        keys: dict[str, Any] = json.loads(text)
        return Reservation(**{each: str(keys.get(each, "")) for each in Reservation.__slots__})
    return Reservation()


def give_name(directory: int, old: str, name: str) -> None:
    """Give a file its name, never taking the name from another.  Raises FileExistsError, OSError."""
    try:
        kernel.rename_noreplace(directory, old, name)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # NFS and others cannot: the link refuses a taken name as well.
        os.link(old, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(old, dir_fd=directory)


def _unlink(directory: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
