"""What a journal says: a transaction's decision, and each member's files.  Values only, and their JSON.

Keys that are not known here are those of a later release: they are kept, at every level, and written back.  Each text
of version 2 carries a digest of itself: a name of which a bit has flipped would be that of another file.
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
from blockworker.records.sealed import KEY, is_whole, seal

VERSION: Final = 2  # members may have files of their own since then, and each text a digest; version 1 is read
_READ: Final = (1, 2)

_KINDS: Final = {"str": str, "int": int, "bool": bool}  # what the fields of these types hold in JSON

T = TypeVar("T")


def _rest() -> Any:
    """The field of a value for keys of a later release."""
    return field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRecord:
    """A cut of a source, from before it is made until it is removed."""

    how: str  # reflink, command:NAME
    source: str  # the path that was cut
    id: str  # what tells it from other cuts of that source
    path: str = ""  # of a reflink: the file beside it
    begun: bool = False  # it was, or is about to be, made
    rest: Mapping[str, Any] = _rest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A file as PREPARE has proven it: which one, and how large."""

    which: str  # ``identity.which_file``
    size: int
    rest: Mapping[str, Any] = _rest()


class Replaced(NamedTuple):
    """The file that publishing may replace, as OPEN saw it.  JSON has the values in their order."""

    dev: int
    ino: int
    which: str = ""  # ``identity.which_file``; "": noted by a release that knew the numbers only


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFiles:
    """One job's files: all that is needed to publish or to remove them."""

    job: str
    transaction: str
    target: str  # absolute; the name it is published under
    staging: str  # a name in the target's directory, as are the next two
    digests: str = ""  # "": none asked for
    manifest: str
    uuid: str
    which: str = ""  # the staging file, as ``identity.which_file`` names it; "": not yet recorded, or by version 1
    dev: int = 0
    ino: int = 0  # 0: intended, perhaps created, not yet recorded
    boot: str = ""  # the boot that ``dev`` belongs to: device numbers move
    size: int
    format: str = ""  # of the image in the staging file; "": raw
    words: tuple[str, ...] = ()  # what else QEMU's tool is told when it makes that image
    cut: CutRecord | None = None
    uncut: str = ""  # why ``snapshot: auto`` came to no cut
    made_dirs: tuple[str, ...] = ()  # directories to remove again on abort, if they are empty then
    overwrite: bool = False
    keep_digests: bool = True  # beside the published image, and its manifest; False: they prove the image, and then go
    # What the source had besides its content, or what the manifest of a restored image names: ``Attributes.to_json``.
    attributes: Mapping[str, Any] | None = None
    replaces: Replaced | None = None  # None: the name of the target was free
    run: str = ""
    reserved: str = ""  # the file in the target's directory that keeps its name free; "": there is none
    resolution: str = ""  # what a user wants to become of it, as it could not be published: ``Resolution``
    token: int = 0  # the highest claim that was let near the staging file
    proven: Mapping[str, Proven] = field(default_factory=dict, hash=False)  # by PREPARE: the files by their names
    published: bool = False
    discarded: bool = False
    rest: Mapping[str, Any] = _rest()

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

        ``remounted``: no file system has the recorded number now; it was given out anew, as at another boot.
        """
        same = st.st_dev == self.dev or self.boot != read_boot_id() or remounted
        return self.ino != 0 and st.st_ino == self.ino and same

    def dump(self) -> bytes:
        """The text of a member's own file."""
        return _text(_pack(self))

    @classmethod
    def parse(cls, text: bytes, path: str) -> MemberFiles:
        """Raises JobFailed: the text is not one of a member."""
        try:
            return _member(_keys(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _unreadable(path, error) from None


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """The transaction beneath one root.  ``members``: those that have no files of their own."""

    transaction: str
    decision: str | None = None  # "commit" or "abort"
    decision_number: int = 0
    state: str = "open"  # or "clean": a tombstone
    members: Mapping[str, MemberFiles] = field(default_factory=dict)
    at: float = 0.0  # when it was written, for people: seconds since the epoch by a clock that anybody may put
    boot: str = ""  # in which boot of the host it was written; "": by a version that did not note it
    uptime: float = 0.0  # and how many seconds after it
    registry: str = ""  # that has begun it, by its incarnation; "": by a version that did not note it
    rest: Mapping[str, Any] = _rest()

    @property
    def clean(self) -> bool:
        """Whether it is a tombstone."""
        return self.state == "clean"

    def having(self, member: MemberFiles) -> JournalRecord:
        return replace(self, members={**self.members, member.job: member})

    def without(self, job: str) -> JournalRecord:
        return replace(self, members={name: member for name, member in self.members.items() if name != job})

    def dump(self) -> bytes:
        return _text(_pack(self), indent=1)

    @classmethod
    def parse(cls, text: bytes, path: str) -> JournalRecord:
        """Raises JobFailed: the text is not one of a journal."""
        try:
            keys = _keys(text)
            members = {name: _member(values) for name, values in keys.pop("members").items()}
            return _unpack(cls, keys, members=members)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _unreadable(path, error) from None


def _unreadable(path: str, error: Exception) -> JobFailed:
    return JobFailed(errno.EBADMSG, f"journal {path} is not one of version 1 or {VERSION}: {error}")


def _text(keys: Mapping[str, Any], indent: int | None = None) -> bytes:
    return seal({"version": VERSION, **keys}, indent)


def _keys(text: bytes) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads(text)
    version, digest = keys.pop("version"), keys.pop(KEY, None)
    if type(version) is not int or version not in _READ:
        raise ValueError("another version")
    if not (is_whole(text.rstrip(b" "), digest) if digest is not None else version == 1):
        raise ValueError("it was changed since it was written: it does not have its digest")
    return keys


def _member(values: dict[str, Any]) -> MemberFiles:
    cut, replaces = values.pop("cut", None), values.pop("replaces", None)
    return _unpack(
        MemberFiles,
        values,
        cut=None if cut is None else _unpack(CutRecord, cut),
        replaces=None if replaces is None else _replaced(*replaces),
        made_dirs=tuple(map(str, values.pop("made_dirs", ()))),
        words=tuple(map(str, values.pop("words", ()))),
        proven={name: _unpack(Proven, file) for name, file in values.pop("proven", {}).items()},
    )


def _replaced(dev: int, ino: int, which: str = "", *_: Any) -> Replaced:
    """The file to be replaced, as a release noted it: by its numbers, or by more than is known here."""
    return Replaced(int(dev), int(ino), str(which))


def _pack(value: Any) -> Any:
    """A value as JSON has it, the keys of a later release among its own."""
    if is_dataclass(value):
        own = {name: _pack(getattr(value, name)) for name in _FIELDS[type(value)]}
        return {**getattr(value, "rest", {}), **own}
    if isinstance(value, Mapping):
        return {name: _pack(each) for name, each in value.items()}
    return value


def _unpack(kind: type[T], values: dict[str, Any], **made: Any) -> T:
    """A value of this kind; ``made``: the fields that are no plain words, numbers and truths."""
    known = _FIELDS[kind]
    own = {name: values.pop(name) for name in [*values] if name in known}
    for name, value in own.items():
        if (expected := known[name]) is not None and type(value) is not expected:
            raise TypeError(f"{name}: {str(value)[:60]!r}: {expected.__name__} was expected")
    return kind(**own, **made, rest=values)  # type: ignore[call-arg]


# The fields of each kind of value, and what JSON holds for those that are plain.
_FIELDS: Final[Mapping[type, Mapping[str, type | None]]] = {
    kind: {each.name: _KINDS.get(str(each.type)) for each in fields(kind) if each.name != "rest"}
    for kind in (CutRecord, Proven, MemberFiles, JournalRecord)
}
