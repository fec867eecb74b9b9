"""The content of a journal: a transaction's decision, and each member's files.  Values and their JSON only.

Keys that this release does not know belong to a later release: unknown keys are kept at every level and written back.
Each text of version 2 carries a digest: a file name with a flipped bit would name a different file.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, NamedTuple, TypeVar

from blockjobs.model.errors import JobFailed
from blockjobs.process.clock import read_boot_id
from blockworker.records.sealed import KEY, is_whole, seal_json

VERSION: Final = 2  # since version 2 a member may have its own file, and each text has a digest; version 1 is read
_READ: Final = (1, 2)

_KINDS: Final = {"str": str, "int": int, "bool": bool}  # the JSON type of a field, by the field's annotation

T = TypeVar("T")


def _unknown_keys_field() -> Any:
    """A field for keys of a later release."""
    return field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRecord:
    """A cut of a source, recorded from before the cut is made until the cut is removed."""

    how: str  # reflink, command:NAME
    source: str  # the path that was cut
    id: str  # distinguishes this cut from other cuts of the source
    path: str = ""  # the reflink's file beside the source; "" for a command's cut
    begun: bool = False  # the cut was made, or is about to be made
    rest: Mapping[str, Any] = _unknown_keys_field()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """Identity and size of a file, as PREPARE has proven the file."""

    which: str  # ``identity.which_file``
    size: int
    rest: Mapping[str, Any] = _unknown_keys_field()


class Replaced(NamedTuple):
    """The file that publishing may replace, as OPEN saw the file.  JSON has the values in this order."""

    dev: int
    ino: int
    which: str = ""  # ``identity.which_file``; "": recorded by a release with dev and ino only


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFiles:
    """The files of a job: enough to publish or remove every file."""

    job: str
    transaction: str
    target: str  # absolute path of the published image
    staging: str  # a name in the target's directory, like the next two
    digests: str = ""  # "": no digests are made
    manifest: str
    uuid: str
    which: str = ""  # ``identity.which_file`` of the staging file; "": not yet recorded, or version 1
    dev: int = 0
    ino: int = 0  # 0: the file is intended and perhaps created, but not yet recorded
    boot: str = ""  # the boot that ``dev`` belongs to: device numbers move
    size: int
    format: str = ""  # of the image in the staging file; "": raw
    words: tuple[str, ...] = ()  # further arguments for QEMU's tool when the tool makes the image
    cut: CutRecord | None = None
    uncut: str = ""  # the reason why ``snapshot: auto`` made no cut
    made_dirs: tuple[str, ...] = ()  # directories that an abort removes if they are empty
    overwrite: bool = False
    keep_digests: bool = True  # beside the published image; False: removed once the image is proven
    # Attributes of the source besides its content, or those in the manifest of a restored image:
    # ``Attributes.to_json``.
    attributes: Mapping[str, Any] | None = None
    replaces: Replaced | None = None  # None: the target's name was free
    run: str = ""
    reserved: str = ""  # the file in the target's directory that reserves its name; "": no reservation
    resolution: str = ""  # a user's decision about an image that could not be published: ``Resolution``
    token: int = 0  # the highest claim that was allowed to write the staging file
    proven: Mapping[str, Proven] = field(default_factory=dict, hash=False)  # set by PREPARE: the files by name
    published: bool = False
    discarded: bool = False
    rest: Mapping[str, Any] = _unknown_keys_field()

    @property
    def name(self) -> str:
        return os.path.basename(self.target)

    @property
    def directory(self) -> str:
        return os.path.dirname(self.target)

    @property
    def settled(self) -> bool:
        return (self.published or self.discarded) and self.cut is None

    def is_file(self, st: os.stat_result, *, remounted: bool = False) -> bool:
        """Whether ``st`` may be the staging file, by the numbers that version 1 recorded.

        ``remounted``: no file system has the recorded device number now; the number is assigned anew, as after a boot.
        """
        same = st.st_dev == self.dev or self.boot != read_boot_id() or remounted
        return self.ino != 0 and st.st_ino == self.ino and same

    def dump(self) -> bytes:
        """The text of a member's own file."""
        return _sealed_text(_pack_value(self))

    @classmethod
    def parse(cls, text: bytes, path: str) -> MemberFiles:
        """Raises JobFailed: the text does not describe a member."""
        try:
            return _parse_member(_parse_keys(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _unreadable_journal(path, error) from None


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """The transaction beneath a root.  ``members``: the members without a separate file."""

    transaction: str
    decision: str | None = None  # "commit" or "abort"
    decision_number: int = 0
    state: str = "open"  # or "clean": a tombstone
    members: Mapping[str, MemberFiles] = field(default_factory=dict)
    at: float = 0.0  # time of writing, for people: seconds since the epoch, by a clock that users may set
    boot: str = ""  # the host's boot at the writing; "": written by a version without this field
    uptime: float = 0.0  # seconds from that boot to the writing
    registry: str = ""  # incarnation of the journal's first registry; "": a version without this field
    rest: Mapping[str, Any] = _unknown_keys_field()

    @property
    def clean(self) -> bool:
        """Whether the record is a tombstone."""
        return self.state == "clean"

    def having(self, member: MemberFiles) -> JournalRecord:
        return replace(self, members={**self.members, member.job: member})

    def without(self, job: str) -> JournalRecord:
        return replace(self, members={name: member for name, member in self.members.items() if name != job})

    def dump(self) -> bytes:
        return _sealed_text(_pack_value(self), indent=1)

    @classmethod
    def parse(cls, text: bytes, path: str) -> JournalRecord:
        """Raises JobFailed: the text is not a journal's."""
        try:
            keys = _parse_keys(text)
            members = {name: _parse_member(values) for name, values in keys.pop("members").items()}
            return _unpack_value(cls, keys, members=members)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _unreadable_journal(path, error) from None


def _unreadable_journal(path: str, error: Exception) -> JobFailed:
    return JobFailed(errno.EBADMSG, f"journal {path} is not one of version 1 or {VERSION}: {error}")


def _sealed_text(keys: Mapping[str, Any], indent: int | None = None) -> bytes:
    return seal_json({"version": VERSION, **keys}, indent)


def _parse_keys(text: bytes) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads(text)
    version, digest = keys.pop("version"), keys.pop(KEY, None)
    if type(version) is not int or version not in _READ:
        raise ValueError("another version")
    if not (is_whole(text.rstrip(b" "), digest) if digest is not None else version == 1):
        raise ValueError("it was changed since it was written: it does not have its digest")
    return keys


def _parse_member(values: dict[str, Any]) -> MemberFiles:
    cut, replaces = values.pop("cut", None), values.pop("replaces", None)
    return _unpack_value(
        MemberFiles,
        values,
        cut=None if cut is None else _unpack_value(CutRecord, cut),
        replaces=None if replaces is None else _parse_replaced(*replaces),
        made_dirs=tuple(map(str, values.pop("made_dirs", ()))),
        words=tuple(map(str, values.pop("words", ()))),
        proven={name: _unpack_value(Proven, file) for name, file in values.pop("proven", {}).items()},
    )


def _parse_replaced(dev: int, ino: int, which: str = "", *_: Any) -> Replaced:
    """The file to be replaced, as any release recorded the file: by its numbers, or with values unknown here."""
    return Replaced(int(dev), int(ino), str(which))


def _pack_value(value: Any) -> Any:
    """A value as its JSON form, merged with the keys of a later release."""
    if is_dataclass(value):
        own = {name: _pack_value(getattr(value, name)) for name in _FIELDS[type(value)]}
        return {**getattr(value, "rest", {}), **own}
    if isinstance(value, Mapping):
        return {name: _pack_value(each) for name, each in value.items()}
    return value


def _unpack_value(kind: type[T], values: dict[str, Any], **made: Any) -> T:
    """Build a value of this kind; ``made``: the fields whose JSON is not a string, a number or a boolean."""
    known = _FIELDS[kind]
    own = {name: values.pop(name) for name in [*values] if name in known}
    for name, value in own.items():
        if (expected := known[name]) is not None and type(value) is not expected:
            raise TypeError(f"{name}: {str(value)[:60]!r}: {expected.__name__} was expected")
    return kind(**own, **made, rest=values)  # type: ignore[call-arg]


# The fields of each kind of value, with the JSON type of each plain field.
_FIELDS: Final[Mapping[type, Mapping[str, type | None]]] = {
    kind: {each.name: _KINDS.get(str(each.type)) for each in fields(kind) if each.name != "rest"}
    for kind in (CutRecord, Proven, MemberFiles, JournalRecord)
}
