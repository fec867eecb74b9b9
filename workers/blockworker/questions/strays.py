"""Our hidden files without a journal: judged one by one, and removed if an owner is no longer possible.

A file is removed only under these conditions: the name has the form of ours (without a date in the place of the
digits), the file is older than a day, no journal of this host or of a host above or below names the file, no process
has the file open, no job has its target, and only this host writes to the file system. A reservation names its
transaction: the registry is asked.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from blockjobs.model.errors import BlockjobsError, JobFailed
from blockworker.host.roots import Root, Roots
from blockworker.records import journal as journals
from blockworker.records.entries import JournalRecord, MemberFiles
from blockworker.records.folder import FOLDER, folder_of
from blockworker.records.reserved import read_reservation
from blockworker.system.filesystem import filesystem_kind

log = logging.getLogger(__name__)

AGE: Final = 24 * 3600.0  # seconds; the least age of a removed file without a journal
# ``.NAME.`` and eight digits of a uuid, and the kind of file; or the reservation of a name. A person may have put a
# date in the place of the uuid.
_HIDDEN: Final = re.compile(
    r"\.(?P<name>.+)\.(?P<uuid>[0-9a-f]{8})\.(?P<kind>part|blake3|manifest|manifest\.new|cut|reserved)", re.DOTALL
)
_RESERVED: Final = re.compile(r"\.(?P<name>.+)\.reserved", re.DOTALL)
_DATE: Final = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_KINDS: Final = {"part": "staging file", "cut": "cut", "reserved": "reserved name"}

Row = dict[str, str]


class StrayKept(Exception):
    """A file stays unchanged; the text says why."""


@dataclass(frozen=True, slots=True)
class SweepQuestions:
    """The questions of a sweep to a registry: whether a transaction is known, and whether a job reads or writes a file.

    ``name``: the registry; ``gone``: a registry that a person says will never come back.
    """

    knows: Callable[[str], bool]
    in_use: Callable[[str, str], bool]
    name: str = ""
    gone: str = ""

    def expect_gone(self, other: str) -> None:
        """Raise StrayKept for a file of another registry, possibly still in use.

        Earlier versions did not note the registry ("").
        """
        if other not in ("", self.name, self.gone):
            text = f"it is of registry {other}, which may go on with it; if that is gone for good"
            raise StrayKept(f"{text}: `blockjobs sweep --lost {other}`")


@dataclass(slots=True)
class Known:
    """The files named in the journals on this host."""

    uuids: set[str] = field(default_factory=set)  # uuids of staging files, and ids of cuts
    unread: list[str] = field(default_factory=list)  # folders in which a journal cannot be read

    def add(self, member: MemberFiles) -> None:
        self.uuids |= {member.uuid[:8], *([member.cut.id[:8]] if member.cut is not None else [])}


def known_of(roots: Roots, root: Root) -> Known:
    """The files of every journal that may have files beneath a root: of any root, and of hosts above and below."""
    known = Known()
    places = [Root(each) for each in roots.config.target_roots]
    for place in dict.fromkeys([root, *places]):
        try:
            for record in journals.scan_open_journals(roots, place):
                for member in journals.read_members(roots, place, record.transaction):
                    known.add(member)
        except (BlockjobsError, OSError) as error:
            known.unread.append(f"{folder_of(place)}: {error}")
        known.unread += _unreadable_journals(f"{place.path.rstrip('/')}/{FOLDER}")
    above = root.path
    while above not in ("/", ""):
        above = os.path.dirname(above)
        if above not in roots.config.target_roots:
            _add_foreign(known, f"{above.rstrip('/')}/{FOLDER}")
    return known


def _unreadable_journals(folder: str) -> list[str]:
    """The damaged journals of a folder: their files are not known."""
    wrong = []
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name.endswith(".journal") and not name.startswith("."):
                try:
                    with open(f"{folder}/{name}", "rb") as file:
                        JournalRecord.parse(file.read(), f"{folder}/{name}")
                except FileNotFoundError:
                    continue
                except (JobFailed, OSError) as error:
                    wrong.append(str(error))
    return wrong


def _add_foreign(known: Known, folder: str) -> None:
    """Add the files of another host's journals, in a folder beneath no root of this host."""
    try:
        for top, _, names in os.walk(folder, onerror=_raise_error):
            for name in names:
                if name.startswith(".") or top.endswith("/settled"):
                    continue
                with open(f"{top}/{name}", "rb") as file:
                    text = file.read()
                if name.endswith(".journal"):
                    for member in JournalRecord.parse(text, f"{top}/{name}").members.values():
                        known.add(member)
                elif top.endswith(".members"):
                    known.add(MemberFiles.parse(text, f"{top}/{name}"))
    except FileNotFoundError:
        return
    except (JobFailed, OSError) as error:
        known.unread.append(f"{folder}: {error}")


def _raise_error(error: OSError) -> None:
    raise error


def sweep_strays(
    roots: Roots, root: Root, known: Known, registry: SweepQuestions, *, dry: bool, now: float
) -> Iterator[Row]:
    candidates = []
    top = roots.open_dir(root.path)
    try:
        local = filesystem_kind(top)[1]
        for inner, folders, names, _ in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            directory = os.path.normpath(f"{root.path}/{inner}")
            folders.sort()  # rows come in the same order at every sweep
            if FOLDER in folders:
                folders.remove(FOLDER)
                if directory != root.path and directory not in roots.config.target_roots:
                    _add_foreign(known, f"{directory}/{FOLDER}")
            ours = [name for name in sorted(names) if _HIDDEN.fullmatch(name) or _RESERVED.fullmatch(name)]
            candidates += [(directory, name) for name in ours]
    finally:
        os.close(top)
    for directory, name in candidates:
        try:
            what = _remove_stray(roots, directory, name, known, registry, local=local, dry=dry, now=now)
        except StrayKept as why:
            yield {"what": "file", "path": f"{directory}/{name}", "state": "left", "text": str(why)}
        except (BlockjobsError, OSError) as error:
            yield {"what": "file", "path": f"{directory}/{name}", "state": "left", "text": str(error)}
        else:
            if what:
                yield {"what": what, "path": f"{directory}/{name}", "state": "removed", "text": "no journal names it"}


def _remove_stray(
    roots: Roots, path: str, name: str, known: Known, registry: SweepQuestions, *, local: bool, dry: bool, now: float
) -> str:
    """Remove a file without an owner; return its kind, or "" for an owned or young file. Raises StrayKept."""
    directory = roots.open_dir(path)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode) or now - max(st.st_mtime, st.st_ctime) < AGE:
                return ""
            kind = _judge_stray(directory, name, known, registry, local=local)
            if not kind:
                return ""
            if st.st_uid != os.geteuid():
                raise StrayKept(f"it is of user {st.st_uid}, and not of the one that sweeps")
            if known.unread:
                raise StrayKept(f"a journal cannot be read, and may name it: {known.unread[0]}")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StrayKept("a process has it open") from None
            if not dry:
                os.unlink(name, dir_fd=directory)
                os.fsync(directory)
                log.info("%s/%s: no journal names it; swept", path, name)
            return kind
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # removed meanwhile, or not one of ours
            return ""
        raise
    finally:
        os.close(directory)


def _judge_stray(directory: int, name: str, known: Known, registry: SweepQuestions, *, local: bool) -> str:
    """The kind of a hidden file; "" for an owned file. Raises StrayKept."""
    place, found = os.fstat(directory), _HIDDEN.fullmatch(name)
    if found is None:
        holder = read_reservation(directory, name)
        if holder is None or holder.uuid[:8] in known.uuids:
            return ""
        if not holder.transaction:
            raise StrayKept("it cannot be read whose name it reserves")
        if registry.knows(holder.transaction):
            return ""
        registry.expect_gone(holder.registry)
        target, kind = name[1 : -len(".reserved")], "reserved"
    else:
        if found["uuid"] in known.uuids:
            return ""
        if _DATE.fullmatch(found["uuid"]):
            raise StrayKept("it may be somebody's own, with a date in its name: no journal names it")
        target, kind = found["name"], found["kind"]
        if not local:
            raise StrayKept("it lies on a file system that other hosts see, whose journals are not known here")
    with suppress(FileNotFoundError):
        st = os.stat(target, dir_fd=directory, follow_symlinks=False)
        if registry.in_use(f"{st.st_dev}:{st.st_ino}", ""):
            return ""
    if registry.in_use("", f"{place.st_dev}:{place.st_ino}/{target}"):
        return ""
    return _KINDS.get(kind, "staging file")
