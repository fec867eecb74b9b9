"""The file system of every write root, and of every mount below a write root, at the first use; checked at every use.

A disk that is not mounted leaves an empty directory of the same name, in which everything fits. The record
``roots.json`` of the host's state directory notes the file system at the first use. On another file system, every
access through ``Roots`` is refused, until the disk is mounted again or a user accepts the change.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockworker.host import state
from blockworker.host.config import HostConfig
from blockworker.host.seen import Seen, directory_identity, why_path_refused
from blockworker.host.state import StatePlace

NAME: Final = "roots.json"
VERSION: Final = 1


class RootAway(JobFailed):
    """A write root, or a mount below a write root, is not on its recorded file system; its content is not known."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ENODEV, text)


@dataclass(frozen=True, slots=True)
class Memory:
    """The record as a whole. Keys of later versions are kept."""

    seen: Mapping[str, Seen] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> bytes:
        paths = {path: asdict(each) for path, each in sorted(self.seen.items())}
        return json.dumps({**self.other, "version": VERSION, "paths": paths}, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes, path: str) -> Memory:
        try:
            keys = json.loads(text)
            names = Seen.__dataclass_fields__
            seen = {
                place: Seen(**{name: value for name, value in each.items() if name in names})
                for place, each in keys.pop("paths").items()
            }
            return cls(seen, keys)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JobFailed(errno.EBADMSG, f"record {path} is not one of version {VERSION}: {error}") from None


class Mounts:
    """The record of one host, shared by all users of its roots. Thread-safe.

    Without a state directory, only the entries written by the steps worker at its start are known.
    """

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._one = threading.RLock()
        self._memory, self._stamp = Memory(), (-1, -1)
        self._away: set[str] = set()
        self._trusted: dict[str, tuple[int, int]] = {}  # path -> device and inode, as checked by this process

    # --- asking ---------------------------------------------------------------------------------------

    def expect(self, path: str, fd: int) -> None:
        """Refuse a write root, or a mount below a write root, on a changed file system; record a path at its first use.

        ``fd``: a descriptor of any kind.

        Raises:
            RootAway: the path is on another file system.
        """
        st = os.fstat(fd)
        if self._trusted.get(path) == (st.st_dev, st.st_ino):
            return
        now = directory_identity(path, fd, write_root=path in self._config.target_roots)
        if now.write_root:
            self._expect_mount_point(now, st)
        with self._one:
            before = self.seen().get(path)
            if before is not None and not before.is_same(now):
                raise RootAway(why_path_refused(before, now))
            if before is None and state.has_directory(self._config):
                self._write(now)
            self._trusted[path] = st.st_dev, st.st_ino
            self._away.discard(path)

    def _expect_mount_point(self, now: Seen, st: os.stat_result) -> None:
        if not self._config.must_be_mounted or now.path not in self._config.write_roots:
            return
        if now.mount != now.path or st.st_dev == os.stat("/").st_dev:
            text = f"write root {now.path} is no mount point of its own (it is on {now.title})"
            raise RootAway(f"{text}: host.toml says must-be-mounted = true; is it mounted?")

    def is_news(self, path: str) -> bool:
        """Whether the absence of a path is news: not reported since the path was last present."""
        with self._one:
            news = path not in self._away
            self._away.add(path)
            return news

    def missing(self, place: str, path: str) -> RootAway:
        """The error for a missing root or mount ``place``; ``path``: the path to be opened below ``place``."""
        text = f"directory {place} does not exist on host {self._config.name}"
        if path == place:
            return RootAway(text)
        before = self.seen().get(place)
        was = f", which was on {before.title}" if before is not None else ""
        return RootAway(f"{path}: {text}{was}: is it mounted?")

    def above(self, path: str) -> list[str]:
        """The write roots, and the recorded mounts below write roots, that contain a path."""
        with_mounts = dict.fromkeys((*self._config.target_roots, *self.seen()))
        return [place for place in with_mounts if path == place or path.startswith(f"{place.rstrip('/')}/")]

    def seen(self) -> Mapping[str, Seen]:
        """Every path on record, as the record is on disk now."""
        with self._one:
            place = state.state_directory_of(self._config)
            if place is not None and self._stamp != (stamp := _record_stamp(f"{place.path}/{NAME}")):
                self._memory, self._stamp = self._read(), stamp
            return self._memory.seen

    def former_roots(self) -> list[str]:
        """Write roots no longer in host.toml: transactions that began beneath them may not be over."""
        known = self._config.target_roots
        return [path for path, each in self.seen().items() if each.write_root and path not in known]

    # --- telling --------------------------------------------------------------------------------------

    def remember(self, path: str, fd: int, *, write_root: bool = True) -> None:
        """Record the file system of a directory, unless the directory is on record.

        Raises:
            OSError: the directory cannot be examined.
            JobFailed: the record cannot be written.
        """
        with self._one:
            if path not in self.seen():
                self._write(directory_identity(path, fd, write_root=write_root))

    def accept(self, path: str) -> tuple[Seen | None, Seen]:
        """Record the present file system of a path as the expected one; return the former record and the new record.

        Raises:
            JobFailed: the path is no write root of this host and no mount below a write root, or cannot be examined.
        """
        with self._one:
            before, is_root = self.seen().get(path), path in self._config.target_roots
            if before is None and not is_root:
                text = f"{path} is neither a write root of host {self._config.name} nor a mount on record below one"
                raise JobFailed(errno.ENOENT, text)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise JobFailed(error.errno or errno.EIO, f"{path}: {error.strerror}") from None
            try:
                now = directory_identity(path, fd, write_root=is_root or (before is not None and before.write_root))
            finally:
                os.close(fd)
            self._write(now)
            return before, now

    def forget(self, path: str) -> None:
        """Remove a path from the record.

        Raises:
            JobFailed: the path is not on record, or is still a write root of host.toml.
        """
        with self._one:
            if path in self._config.target_roots or path not in self.seen():
                text = f"{path} is not on record on host {self._config.name} as a path that host.toml no longer has"
                raise JobFailed(errno.ENOENT, text)
            self._change(lambda seen: {key: each for key, each in seen.items() if key != path})
            self._trusted.pop(path, None)

    # --- the record -----------------------------------------------------------------------------------

    def _read(self) -> Memory:
        """The record in the host's place for records, completed by the records in other places."""
        found = [_read_root_memory(place) for place in state.places_of(self._config)]
        seen: dict[str, Seen] = {}
        for memory in reversed(found):
            seen |= memory.seen
        return Memory(seen, found[0].other if found else {})

    def _write(self, look: Seen) -> None:
        self._change(lambda seen: {**seen, look.path: look})

    def _change(self, change: Callable[[Mapping[str, Seen]], Mapping[str, Seen]]) -> None:
        place = state.state_directory_of(self._config)
        if place is None:
            return
        with state.state_errors_as_failure(place.path), state.locked_record(place, NAME):
            memory = self._read()
            memory = replace(memory, seen=change(memory.seen))
            state.write_record(place, NAME, memory.dump())
            self._memory, self._stamp = memory, _record_stamp(f"{place.path}/{NAME}")


def _read_root_memory(place: StatePlace) -> Memory:
    text = state.read_record(place, NAME)
    return Memory() if text is None else Memory.parse(text, f"{place.path}/{NAME}")


def _record_stamp(path: str) -> tuple[int, int]:
    """Inode and modification time of a record: they change when the record is replaced."""
    try:
        st = os.stat(path)
    except OSError:
        return 0, 0
    return st.st_ino, st.st_mtime_ns
