"""Owner and permissions of published backups: parse the keys of ``host.toml``, and check that files can be given."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import Final

from blockjobs.model.errors import BadInput

OWNER: Final = "USER, USER:GROUP or :GROUP of this machine, or an empty text"
MODE: Final = 'permission bits such as "0640": the owner reads and writes, nobody executes'
_CHOWN: Final = 1 << 0  # linux/capability.h: CAP_CHOWN


def parse_owner(text: str) -> str:
    """Check an owner, and return the text. Raises BadInput: the text names no user or group of this machine."""
    if not re.fullmatch(r"[^:\s]*(:[^:\s]+)?", text):
        raise BadInput(f"backup-owner: {text!r}: {OWNER} was expected")
    ids_of(text)
    return text


def ids_of(owner: str) -> tuple[int, int]:
    """User and group id; -1 for an unnamed user or group. Raises BadInput."""
    user, _, group = owner.partition(":")
    return (_id_of(user, "user") if user else -1, _id_of(group, "group") if group else -1)


def _id_of(name: str, kind: str) -> int:
    """The number of a user or a group, given by name or number."""
    if name.isdecimal() and int(name) < (1 << 32) - 1:
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadInput(f"backup-owner: there is no {kind} '{name}' on this machine") from None


def parse_mode(text: str) -> int:
    """Permission bits.  Raises BadInput."""
    mode = int(text, 8) if re.fullmatch(r"0?[0-7]{3}", text) else 0
    if mode & 0o711 != 0o600:  # the owner reads and writes, nobody executes
        raise BadInput(f"backup-mode: {text!r}: {MODE} was expected")
    return mode


def mode_of_directories(mode: int) -> int:
    """Permission bits of directories made by jobs: a reader of a backup may search the directory of the backup."""
    return mode | (mode & 0o444) >> 2


def expect_owner_can_be_given(owner: str, path: str) -> None:
    """Refuse an owner to whom this process cannot give a file; ``path``: the file that names the owner.

    Raises:
        BadInput: names file and key; only root, or CAP_CHOWN, gives files to another user or to a foreign group.
    """
    user, group = ids_of(owner)
    with open("/proc/self/status", encoding="ascii") as file:
        capable = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    own_groups = {-1, os.getegid(), *os.getgroups()}
    if not capable & _CHOWN and (user not in {-1, os.geteuid()} or group not in own_groups):
        text = f"user {os.geteuid()}, by whom the worker runs, cannot give files to '{owner}'"
        raise BadInput(f"{path}: backup-owner: {text}: a worker that runs as root was expected")
