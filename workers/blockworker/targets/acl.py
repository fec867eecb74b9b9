"""POSIX access ACLs, in the kernel's form as an extended attribute and in the form that ``getfacl -n`` writes."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

NAME: Final = "system.posix_acl_access"
_VERSION: Final = struct.pack("<I", 2)  # linux/posix_acl_xattr.h
_ENTRY: Final = struct.Struct("<HHI")
_NOBODY: Final = 0xFFFFFFFF  # the number in an entry without a named user or group
_TAGS: Final = {1: "user:", 2: "user", 4: "group:", 8: "group", 16: "mask:", 32: "other:"}  # with ":": not named
_NUMBERS: Final = {tag: number for number, tag in _TAGS.items()}
_TEXT: Final = re.compile(r"(user|group|mask|other):(\d{0,10}):([r-][w-][x-])")
_MOST: Final = 200  # entries


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of an ACL.  ``tag``: ``user:``, ``group:``, ``mask:``, ``other:``; or ``user`` or ``group``.

    ``of``: the number of the user or group, for the two tags without a colon.
    """

    tag: str
    bits: int
    of: int = _NOBODY

    @property
    def is_own_group(self) -> bool:
        """Whether the entry is for the file's own group."""
        return self.tag == "group:"

    def __str__(self) -> str:
        bits = "".join(letter if self.bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        return f"{self.tag}:{bits}" if self.tag.endswith(":") else f"{self.tag}:{self.of}:{bits}"


def unpack_acl(value: bytes) -> tuple[Entry, ...]:
    """The entries of the kernel's attribute; empty for an empty attribute or an unknown version."""
    if value[:4] != _VERSION or (len(value) - 4) % _ENTRY.size:
        return ()
    return tuple(Entry(_TAGS[tag], bits & 7, of) for tag, bits, of in _ENTRY.iter_unpack(value[4:]) if tag in _TAGS)


def pack_acl(entries: Sequence[Entry]) -> bytes:
    """The kernel's attribute, with the entries in the order that the kernel expects."""
    ordered = sorted(entries, key=lambda entry: (_NUMBERS[entry.tag], entry.of))
    return _VERSION + b"".join(_ENTRY.pack(_NUMBERS[entry.tag], entry.bits, entry.of) for entry in ordered)


def parse_acl(texts: Sequence[object]) -> tuple[Entry, ...]:
    """Parse the entries in a manifest; check each entry, and check that the entries together form an ACL.

    Raises:
        ValueError: a text is not an entry, or the kernel would refuse the combination.
    """
    if len(texts) > _MOST:
        raise ValueError(f"at most {_MOST} entries were expected")
    entries = tuple(_parse_entry(text) for text in texts)
    places = [(entry.tag, entry.of) for entry in entries]
    tags = [entry.tag for entry in entries]
    if len(set(places)) != len(places):
        raise ValueError("an entry is there twice")
    if entries and not {"user:", "group:", "other:"} <= set(tags):
        raise ValueError("entries of the owner, the group and all others were expected")
    if {"user", "group"} & set(tags) and "mask:" not in tags:
        raise ValueError("a mask was expected beside named users and groups")
    return entries


def _parse_entry(text: object) -> Entry:
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'{str(text)[:60]}: an entry such as "user:107:rw-" was expected')
    kind, number, letters = match.groups()
    bits = sum(bit for letter, bit in zip(letters, (4, 2, 1), strict=True) if letter != "-")
    if not number:
        return Entry(f"{kind}:", bits)
    if kind in ("mask", "other") or int(number) >= _NOBODY:
        raise ValueError(f"{text}: the number of a user or a group was expected")
    return Entry(kind, bits, int(number))
