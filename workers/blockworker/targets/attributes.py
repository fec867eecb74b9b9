"""Attributes of a file besides content: owner, group, permissions, POSIX ACL, ``user.*`` attributes, SELinux label.

Rule: a manifest is data, and data must not give rights.  A file is given only the attributes listed above: no setuid,
setgid or sticky bit, no ``security.*`` attribute but the SELinux label, no ``trusted.*`` attribute, and the access ACL
alone of ``system.*``.  Every change goes through an open descriptor, never through a path.
"""

from __future__ import annotations

import base64
import binascii
import errno
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from blockworker.targets import acl

PERMISSIONS: Final = 0o777
LARGEST: Final = 16 << 10  # bytes of names and values of ``user.*`` attributes, together
_LARGEST_ID: Final = (1 << 32) - 2  # the number above means "no change" to the kernel
_MOST_REFUSED: Final = 20  # sentences about refused attributes of a manifest
_LABEL: Final = "security.selinux"
_LABEL_TEXT: Final = re.compile(r"[A-Za-z0-9_.:,+-]{1,255}")
# overlayfs mounted with ``userxattr`` obeys these attributes: a file then shows the content of another file.
_OBEYED: Final = "user.overlay."
_NONE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.EINVAL})  # no attribute, or no support


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Attributes of a file; None: unknown, and not given.  ``mode``: permission bits; ``refused``: names left out."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    acl: tuple[acl.Entry, ...] | None = None  # (): no entries beyond the mode
    user: Mapping[str, bytes] | None = None
    label: str | None = None
    refused: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The known attributes as JSON for a manifest: numbers count, the names of users and groups are for people."""
        values: dict[str, Any] = {
            "uid": self.uid, "owner": None if self.uid is None else _account_name(pwd.getpwuid, self.uid),
            "gid": self.gid, "group": None if self.gid is None else _account_name(grp.getgrgid, self.gid),
            "mode": None if self.mode is None else f"{self.mode:04o}",
            "acl": None if self.acl is None else [str(entry) for entry in self.acl],
            "user": None if self.user is None else {name: _to_text(value) for name, value in self.user.items()},
            "selinux": self.label, "refused": list(self.refused) or None,
        }  # fmt: skip
        return {name: value for name, value in values.items() if value is not None}


def read_attributes(fd: int, *, largest: int | None = LARGEST) -> Attributes:
    """Read the attributes of an open file; ``user.*`` beyond ``largest`` bytes counts as refused.  Raises OSError."""
    st = os.fstat(fd)
    user: dict[str, bytes] = {}
    refused, room = [], largest
    for name in sorted(_user_attribute_names(fd)):
        value = _attribute_value(fd, name)
        if value is None or name.startswith(_OBEYED):
            continue
        if room is not None and len(name) + len(value) > room:
            refused.append(f"attribute {name[:100]}: {len(value)} bytes are too many")
            continue
        room = None if room is None else room - len(name) - len(value)
        user[name] = value
    label = (_attribute_value(fd, _LABEL) or b"").rstrip(b"\0").decode("ascii", "replace")
    return Attributes(
        uid=st.st_uid,
        gid=st.st_gid,
        mode=stat.S_IMODE(st.st_mode) & PERMISSIONS,
        acl=acl.unpack_acl(_attribute_value(fd, acl.NAME) or b""),
        user=user,
        label=label or None,
        refused=tuple(refused[:_MOST_REFUSED]),
    )


def parse_attributes(values: object) -> Attributes:
    """Parse the attributes in a manifest; a wrong type, a value too large or a forbidden name is listed as refused."""
    if values is None:
        return Attributes()
    if not isinstance(values, Mapping):
        return Attributes(refused=("attributes: an object was expected",))
    refused: list[str] = []
    found: dict[str, Any] = {}
    for name, value in values.items():
        try:
            if name in _PARSERS:
                field, parser = _PARSERS[name]
                found[field], wrong = parser(value)
                refused += wrong
            elif name == "refused" and isinstance(value, list):
                refused += [str(each)[:200] for each in value]
            elif name not in ("owner", "group"):
                raise ValueError("it is never given to a file")
        except (ValueError, TypeError, OverflowError) as error:
            refused.append(f"{str(name)[:100]}: {error}")
    return Attributes(**found, refused=tuple(refused[:_MOST_REFUSED]))


def give_attributes(fd: int, wanted: Attributes) -> list[str]:
    """Give attributes to an open file; return a sentence for each failure.  The caller syncs the file."""
    lost = list(wanted.refused)
    own = os.fstat(fd)
    group_given = wanted.gid in (None, own.st_gid)
    if not group_given:
        group_given = not (wrong := _try_to_give(f"group {wanted.gid}", lambda: os.fchown(fd, -1, wanted.gid or 0)))
        lost += wrong
    # In a foreign group, the bits for the group would give rights to the wrong users.
    mode, entries = wanted.mode, wanted.acl
    if not group_given and mode is not None and mode & 0o070:
        mode &= ~0o070
        lost.append(f"permissions of the group: they would be those of group {own.st_gid}")
        entries = None if entries is None else tuple(replace(e, bits=0) if e.is_own_group else e for e in entries)
    if mode is not None and os.geteuid() != 0 and mode & 0o600 != 0o600:
        lost.append(f"mode {mode:04o}: the worker, which is not root, has to read and write the file")
        mode |= 0o600
    if entries is not None:
        with suppress(OSError):
            os.removexattr(fd, acl.NAME)  # an ACL that the file inherited from its directory
    if mode is not None:
        lost += _try_to_give(f"mode {mode:04o}", lambda: os.fchmod(fd, mode & PERMISSIONS))
    if entries:
        packed = acl.pack_acl(entries)
        lost += _try_to_give("POSIX ACL", lambda: os.setxattr(fd, acl.NAME, packed))
    values = {(f"attribute {name[:100]}", name): value for name, value in (wanted.user or {}).items()}
    if wanted.label is not None:
        values[f"SELinux label {wanted.label}", _LABEL] = wanted.label.encode() + b"\0"
    for (what, name), value in values.items():
        if _attribute_value(fd, name) != value:
            lost += _try_to_give(what, partial(os.setxattr, fd, name, value))
    if wanted.uid is not None and wanted.uid != own.st_uid:  # last: without root, no change is allowed afterwards
        lost += _try_to_give(f"owner {wanted.uid}", lambda: os.fchown(fd, wanted.uid or 0, -1))
    return lost


def _try_to_give(what: str, action: Callable[[], object]) -> list[str]:
    try:
        action()
    except OSError as error:
        return [f"{what}: {error.strerror or os.strerror(error.errno or errno.EIO)}"]
    return []


# --- from and to an open file ------------------------------------------------------------------------------


def _user_attribute_names(fd: int) -> Iterator[str]:
    """The names of the ``user.*`` attributes of an open file."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return
    yield from (name for name in names if name.startswith("user."))


def _attribute_value(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return None


def _account_name(look_up: Callable[[int], Any], number: int) -> str | None:
    try:
        return str(look_up(number)[0])
    except (KeyError, OverflowError):
        return None


def _to_text(value: bytes) -> str | dict[str, str]:
    """A value as JSON: as text if the value is printable text, otherwise in base64."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    return text if text.isprintable() else {"base64": base64.b64encode(value).decode("ascii")}


# --- from a manifest ---------------------------------------------------------------------------------------


def _parse_number(value: object) -> tuple[int, list[str]]:
    if type(value) is not int or not 0 <= value <= _LARGEST_ID:
        raise ValueError("the number of a user or a group was expected")
    return value, []


def _parse_mode(value: object) -> tuple[int, list[str]]:
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{1,6}", value):
        raise ValueError('permission bits such as "0640" were expected')
    mode = int(value, 8)
    more = [f"mode {value}: setuid, setgid and sticky are never given to a file"] if mode & ~PERMISSIONS else []
    return mode & PERMISSIONS, more


def _parse_acl_list(value: object) -> tuple[tuple[acl.Entry, ...], list[str]]:
    if not isinstance(value, list):
        raise ValueError('a list of entries such as "user:107:rw-" was expected')
    return acl.parse_acl(value), []


def _parse_user_attributes(value: object) -> tuple[dict[str, bytes], list[str]]:
    if not isinstance(value, Mapping):
        raise ValueError("an object of names and values was expected")
    found: dict[str, bytes] = {}
    refused, room = [], LARGEST
    for name, each in value.items():
        if not isinstance(name, str) or not name.startswith("user.") or name.startswith(_OBEYED) or "\0" in name:
            refused.append(f"attribute {str(name)[:100]}: it is never given to a file")
            continue
        try:
            content = _decode_content(each)
        except (ValueError, TypeError, UnicodeEncodeError):
            refused.append(f"attribute {name[:100]}: a text, or an object with base64, was expected")
            continue
        if len(name.encode("utf-8", "replace")) > 255 or len(name) + len(content) > room:
            refused.append(f"attribute {name[:100]}: {len(content)} bytes are too many")
            continue
        room -= len(name) + len(content)
        found[name] = content
    return found, refused


def _decode_content(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, Mapping) and set(value) == {"base64"}:
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
    raise TypeError("neither a text nor base64")


def _parse_label(value: object) -> tuple[str, list[str]]:
    if not isinstance(value, str) or not _LABEL_TEXT.fullmatch(value):
        raise ValueError("an SELinux label was expected")
    return value, []


_PARSERS: Final[dict[object, tuple[str, Callable[[object], tuple[Any, list[str]]]]]] = {
    "uid":     ("uid", _parse_number),
    "gid":     ("gid", _parse_number),
    "mode":    ("mode", _parse_mode),
    "acl":     ("acl", _parse_acl_list),
    "user":    ("user", _parse_user_attributes),
    "selinux": ("label", _parse_label),
}  # fmt: skip
