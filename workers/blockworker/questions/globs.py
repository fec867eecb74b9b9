"""The matches of a pattern on this host: plain files beneath the read roots, through no symlink, in order.

As in a shell, ``*``, ``?`` and ``[...]`` match within one part of a path, and a leading dot only if the pattern has the
dot. Rule: a matching name that is not taken is reported, with the reason: its absence would be noticed only at the
restore. Only our own files are skipped without a report.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput, JobFailed
from blockworker.host.roots import Roots, file_kind
from blockworker.targets.names import is_ours

MOST: Final = 1000  # names a pattern may match
LOOKED: Final = 100_000  # names that are examined
_GLOB: Final = re.compile(r"[*?\[]")
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A matching name that no job can read; ``path`` is printable for messages."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Matches:
    """The matches of a pattern: readable files, and names left out; both sorted."""

    paths: list[str]
    left_out: list[NotTaken]


def find_matches(roots: Roots, pattern: str) -> Matches:
    """The matching files, and the matching names that are no such files.

    Raises:
        JobFailed: a directory named in the pattern cannot be read, or the pattern matches too many names.
    """
    try:
        volumespec.checked_path(pattern)
    except BadInput as wrong:
        raise JobFailed(errno.EINVAL, str(wrong)) from None
    parts = pattern.split("/")[1:]
    first = next((at for at, part in enumerate(parts) if _GLOB.search(part)), len(parts) - 1)
    walk = _Walk(roots)
    places = ["/" + "/".join(parts[:first])]
    for at in range(first, len(parts)):
        last = at == len(parts) - 1
        places = [path for place in places for path in walk.below(place, parts[at], named=at == first, last=last)]
    if len(places) + len(walk.left_out) > MOST:
        count = len(places) + len(walk.left_out)
        raise JobFailed(errno.E2BIG, f"{pattern} matches {count} files: at most {MOST} were expected")
    return Matches(sorted(places), sorted(walk.left_out, key=lambda left: left.path))


class _Walk:
    """A walk through the directories of a pattern, with a limit for the examined names."""

    def __init__(self, roots: Roots) -> None:
        self._roots, self._budget = roots, LOOKED
        self.left_out: list[NotTaken] = []

    def below(self, place: str, part: str, *, named: bool, last: bool) -> list[str]:
        """The paths in a directory that match one part of the pattern; names left out are noted.

        ``named``: the pattern names the directory, which has to exist. ``last``: match files, else directories.
        """
        try:
            fd = self._roots.open_dir(place, write=False)
        except JobFailed as failed:
            if named:
                raise
            if failed.errno != errno.ENOENT:  # else the directory is gone since
                self.left_out.append(NotTaken(place, failed.text))
            return []
        try:
            return list(self._matching(fd, place, part, last=last))
        finally:
            os.close(fd)

    def _matching(self, directory: int, place: str, part: str, *, last: bool) -> Iterator[str]:
        names = os.listdir(directory) if _GLOB.search(part) else [part]
        if len(names) > self._budget:
            raise JobFailed(errno.E2BIG, f"{place}: more than {LOOKED} names would have to be looked at")
        self._budget -= len(names)
        for name in names:
            if not _matches_part(name, part) or is_ours(path := f"{place.rstrip('/')}/{name}"):
                continue
            why = _why_no_file(directory, name) if last else _why_no_directory(directory, name)
            if why is None:
                continue
            shown = volumespec.printable_text(os.fsencode(path).decode("utf-8", "replace"))
            if not why:
                with suppress(BadInput):
                    yield volumespec.checked_path(path)
                    continue
                why = "no job can be given such a name"
            self.left_out.append(NotTaken(shown, why))


def _matches_part(name: str, part: str) -> bool:
    if not _GLOB.search(part):
        return name == part
    return fnmatchcase(name, part.replace("[^", "[!")) and (part.startswith(".") or not name.startswith("."))


def _why_no_file(directory: int, name: str) -> str | None:
    """Why no job can read this name; "" if a job can, None if the file is gone since."""
    try:
        st = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISREG(st.st_mode):
            return f"it is {file_kind(st)}: a regular file was expected"
        os.close(os.open(name, _FLAGS, dir_fd=directory))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    return ""


def _why_no_directory(directory: int, name: str) -> str | None:
    """Why nothing below this name is examined; "" for a directory, None if nothing can be below."""
    try:
        st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    if stat.S_ISLNK(st.st_mode):
        return "it is a symlink, which is not followed"
    return "" if stat.S_ISDIR(st.st_mode) else None
