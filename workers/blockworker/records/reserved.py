"""The reservation of a target's name from OPEN on: two hosts with a shared directory notice a conflict.

``.NAME.reserved`` is made beside the target, never over an existing file, and names its owner: JSON with run, job,
host, transaction, the uuid of the staging file and the registry.  The journal records the member before the reservation
is made, and settling removes the reservation; NAME itself stays free until the commit.
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

_LARGEST: Final = 1 << 16  # bytes; a reservation has hundreds, but foreign users may have written any file


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The owner of a target's name; all fields are empty if the file is unreadable."""

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
    """Reserve the name of a target; a repeated call is harmless.  The sync of the directory is left to the caller.

    Raises:
        JobFailed: another job has reserved the name (EBUSY).
    """
    name, draft = reserved_name(member.name), f".{member.name}.{member.uuid[:8]}.reserved"
    if (holder := read_reservation(directory, name)) is not None and holder.uuid == member.uuid:
        _unlink_if_exists(directory, draft)
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
        _unlink_if_exists(directory, draft)
        holder = read_reservation(directory, name) or Reservation()
        path = f"{member.directory}/{name}"
        text = f"target {member.target} is reserved by {holder.title}, which is not over: {path}"
        raise JobFailed(errno.EBUSY, text) from None


def release_name(directory: int, member: MemberFiles) -> None:
    """Remove the reservation of a member, if present.  The sync of the directory is left to the caller.

    Raises OSError: the owner cannot be read now; the reservation would stay and block the name for every job.
    """
    if not member.reserved:
        return
    holder = read_reservation(directory, member.reserved, certain=True)
    if holder is not None and holder.uuid == member.uuid:
        _unlink_if_exists(directory, member.reserved)
    _unlink_if_exists(directory, f"{member.reserved.removesuffix('.reserved')}.{member.uuid[:8]}.reserved")


def read_reservation(directory: int, name: str, *, certain: bool = False) -> Reservation | None:
    """Read a reservation; None without a file, an empty Reservation if the file is unreadable.

    ``certain``: a file that is unreadable now, and may be this host's, raises OSError.
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
    """Rename a file, never over an existing file.  Raises FileExistsError, OSError."""
    try:
        kernel.rename_noreplace(directory, old, name)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # NFS and other file systems lack this rename; a hard link refuses a taken name as well.
        os.link(old, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(old, dir_fd=directory)


def _unlink_if_exists(directory: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
