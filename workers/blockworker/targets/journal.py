"""The journal: what a transaction has made beneath one root, and what was decided about it, on disk.

``ROOT/.blockjobs/TRANSACTION.journal`` is JSON, replaced whole (temporary file, fsync, rename, fsync of the
directory).  Rule: whoever creates, renames or unlinks anything of the transaction holds the flock of
``TRANSACTION.lock`` and reads the journal after it got it.  A settled transaction leaves a tombstone,
``ROOT/.blockjobs/settled/TRANSACTION.journal``, under which nothing is ever created again.  A week's tombstones of many
small runs are thousands: whoever looks for open journals does not meet them, and they have no lock files.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from blockjobs.model import ids
from blockjobs.model.errors import JobFailed
from blockworker.host import boot_id
from blockworker.roots import Root, Roots
from blockworker.targets import folder as folders
from blockworker.targets.folder import SETTLED, LockBusy, folder_of, read_file, release, remove_folder, take_lock

log = logging.getLogger(__name__)

VERSION: Final = 1
PATIENCE: Final = 2.0  # seconds; a holder needs milliseconds, one that needs longer is stopped or on a dead disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A cut of a source, from before it is made until it is removed."""

    how: str  # reflink, command:NAME
    source: str  # the path that was cut
    id: str  # what tells it from other cuts of that source
    path: str = ""  # of a reflink: the file beside it
    begun: bool = False  # it was, or is about to be, made


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One job's files: all that is needed to publish or to remove them."""

    job: str
    transaction: str
    target: str  # absolute; the name it is published under
    staging: str  # a name in the target's directory, as are the next two
    digests: str = ""  # "": none asked for
    manifest: str
    uuid: str
    dev: int = 0
    ino: int = 0  # 0: intended, perhaps created, not yet recorded
    boot: str = ""  # the boot that ``dev`` belongs to: device numbers move
    size: int
    format: str = ""  # of the image in the staging file; "": raw
    words: tuple[str, ...] = ()  # what else QEMU's tool is told when it makes that image
    cut: Kept | None = None
    uncut: str = ""  # why ``snapshot: auto`` came to no cut
    made_dirs: tuple[str, ...] = ()  # directories to remove again on abort, if they are empty then
    overwrite: bool = False
    replaces: tuple[int, int] | None = None  # dev and inode of the file that publishing may replace
    token: int = 0  # the highest claim that was let near the staging file
    published: bool = False
    discarded: bool = False

    @property
    def name(self) -> str:
        return os.path.basename(self.target)

    @property
    def directory(self) -> str:
        return os.path.dirname(self.target)

    @property
    def settled(self) -> bool:
        return (self.published or self.discarded) and self.cut is None

    def is_file(self, st: os.stat_result) -> bool:
        """Whether ``st`` is the staging file, under whatever name."""
        return self.ino != 0 and st.st_ino == self.ino and (st.st_dev == self.dev or self.boot != boot_id())


@dataclass(frozen=True, slots=True)
class Record:
    """The journal's content."""

    transaction: str
    decision: str | None = None  # "commit" or "abort"
    decision_number: int = 0
    state: str = "open"  # or "clean": a tombstone
    members: Mapping[str, Member] = field(default_factory=dict)
    at: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether it is a tombstone."""
        return self.state == "clean"

    @property
    def settled(self) -> bool:
        """Whether it is decided and nothing is left to do for its members."""
        return self.decision is not None and all(member.settled for member in self.members.values())

    def having(self, member: Member) -> Record:
        return replace(self, members={**self.members, member.job: member})

    def without(self, job: str) -> Record:
        return replace(self, members={name: member for name, member in self.members.items() if name != job})

    def dump(self) -> bytes:
        keys: dict[str, Any] = {
            "version": VERSION,
            "transaction": self.transaction,
            "state": self.state,
            "decision": self.decision,
            "decision_number": self.decision_number,
            "at": self.at,
            "members": {name: asdict(member) for name, member in self.members.items()},
        }
        return json.dumps(keys, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes, path: str) -> Record:
        try:
            keys = json.loads(text)
            if keys.pop("version") != VERSION:
                raise ValueError("another version")
            members = {name: _member(values) for name, values in keys.pop("members").items()}
            return cls(members=members, **keys)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JobFailed(errno.EBADMSG, f"journal {path} is not one of version {VERSION}: {error}") from None


def _member(values: dict[str, Any]) -> Member:
    replaces = values.pop("replaces")
    made, words = tuple(values.pop("made_dirs")), tuple(values.pop("words", ()))
    cut = values.pop("cut", None)
    pair = None if replaces is None else (replaces[0], replaces[1])
    return Member(made_dirs=made, words=words, replaces=pair, cut=None if cut is None else Kept(**cut), **values)


class Journal:
    """The journal under its lock.  ``record`` is None while there is none."""

    def __init__(self, folder: int, lock: int, path: str, transaction: str) -> None:
        self._folder, self.lock, self._path = folder, lock, path
        self._name = f"{transaction}.journal"
        self.record = _read(folder, self._name, path)
        if self.record is not None and self.record.clean:
            self._bury()
        self._removed = False

    def write(self, record: Record) -> None:
        """Replace the journal, durably; by its tombstone where it is clean."""
        record = replace(record, at=time.time())
        if record.clean:
            with folders.settled(self._folder, make=True) as settled:
                self._put(settled, record)
            self._bury()
        else:
            self._put(self._folder, record)
        self.record = record

    def _put(self, folder: int, record: Record) -> None:
        temporary = f".{self._name}.new"  # one name is enough: the lock is ours
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(record.dump())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    def _bury(self) -> None:
        """The tombstone is durable: what it stands for may go."""
        if _unlink(self._folder, f".{self._name}.new", self._name):
            os.fsync(self._folder)

    def remove(self) -> None:
        """Remove the journal, and last its lock file: from then on another may have one of the same name."""
        if self._removed:
            return
        self._removed = True
        names = f".{self._name}.new", self._name
        with suppress(FileNotFoundError), folders.settled(self._folder) as settled:
            if _unlink(settled, *names):
                os.fsync(settled)
        _unlink(self._folder, *names)
        self.unlock()
        os.fsync(self._folder)
        self.record = None

    def unlock(self) -> None:
        """Remove the lock file, which is held: whoever waits for it finds it gone, and makes his own."""
        _unlink(self._folder, f"{self._name.removesuffix('.journal')}.lock")


def _unlink(folder: int, *names: str) -> bool:
    """Whether any of them was there."""
    found = False
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
            found = True
    return found


def _read(folder: int, name: str, path: str) -> Record | None:
    """The tombstone, or else the journal: where there are both, who wrote the one died before he removed the other."""
    text = None
    with suppress(FileNotFoundError), folders.settled(folder) as settled:
        text = read_file(settled, name)
    if text is None:
        text = read_file(folder, name)
    return None if text is None else Record.parse(text, path)


def read(roots: Roots, root: Root, transaction: str) -> Record | None:
    """The journal without its lock: for looking only."""
    ids.job_id(transaction)
    try:
        folder = roots.open_dir(folder_of(root))
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return None
        raise
    try:
        return _read(folder, f"{transaction}.journal", f"{folder_of(root)}/{transaction}.journal")
    finally:
        os.close(folder)


def scan(roots: Roots, root: Root) -> Iterator[Record]:
    """Every open journal beneath the root without its lock, one at a time."""
    return _scan(roots, folder_of(root))


def _scan(roots: Roots, path: str) -> Iterator[Record]:
    try:
        folder = roots.open_dir(path)
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return
        raise
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".journal") and not name.startswith("."))
        for name in names:
            if (text := read_file(folder, name)) is None:
                continue
            try:
                yield Record.parse(text, f"{path}/{name}")
            except JobFailed as failed:
                log.warning("%s", failed)  # one bad journal must not stop the others' work
    finally:
        os.close(folder)


@contextmanager
def held(roots: Roots, root: Root, transaction: str, *, patience: float = PATIENCE) -> Iterator[Journal]:
    """The journal with its lock held; its ``record`` is None while there is none, and then no trace of it stays.

    Raises:
        LockBusy: another process held the lock for ``patience`` seconds.
    """
    ids.job_id(transaction)  # it becomes a file name
    folder, lock = take_lock(roots, root, transaction, patience)
    journal = None
    try:
        journal = Journal(folder, lock, f"{folder_of(root)}/{transaction}.journal", transaction)
        yield journal
    finally:
        if journal is not None:
            if journal.record is None:
                journal.remove()
                remove_folder(roots, root)
            elif journal.record.clean:
                journal.unlock()
        release(lock)
        os.close(folder)


@contextmanager
def locked(roots: Roots, root: Root, transaction: str, *, patience: float = PATIENCE) -> Iterator[Journal | None]:
    """The journal with its lock held; None if there is none, and then nothing is made."""
    if read(roots, root, transaction) is None:
        yield None
        return
    with held(roots, root, transaction, patience=patience) as journal:
        yield journal if journal.record is not None else None


def sweep_tombstones(roots: Roots, root: Root, older_than_s: float, *, now: float | None = None) -> int:
    """Remove tombstones of that age; return how many."""
    before = (time.time() if now is None else now) - older_than_s
    swept = 0
    for seen in _scan(roots, f"{folder_of(root)}/{SETTLED}"):
        if seen.at > before:
            continue
        with suppress(LockBusy), locked(roots, root, seen.transaction, patience=0) as journal:
            if journal is not None and journal.record is not None and journal.record.clean:
                journal.remove()
                swept += 1
    remove_folder(roots, root)
    return swept
