"""What a pattern matches on this host: plain files beneath the read roots, through no symlink, in order.

As in a shell ``*``, ``?`` and ``[...]`` match within one part of a path, and a leading dot only where it is written.
A name that no job could be given is an error, not left out: nobody would miss it until the restore.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from fnmatch import fnmatchcase
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput, JobFailed
from blockworker.roots import Roots

MOST: Final = 1000  # files a pattern may match
LOOKED: Final = 100_000  # names that are looked at
_GLOB: Final = re.compile(r"[*?\[]")


def matches(roots: Roots, pattern: str) -> list[str]:
    """The files that match, sorted.

    Raises:
        JobFailed: a directory that is named cannot be read, or there is too much.
    """
    try:
        volumespec.checked_path(pattern)
    except BadInput as wrong:
        raise JobFailed(errno.EINVAL, str(wrong)) from None
    parts = pattern.split("/")[1:]
    first = next((at for at, part in enumerate(parts) if _GLOB.search(part)), len(parts) - 1)
    places, budget = ["/" + "/".join(parts[:first])], LOOKED
    for at in range(first, len(parts)):
        found: list[str] = []
        for place in places:
            seen = _below(roots, place, parts[at], named=at == first, last=at == len(parts) - 1, budget=budget)
            budget -= seen[0]
            found += seen[1]
        places = found
    if len(places) > MOST:
        raise JobFailed(errno.E2BIG, f"{pattern} matches {len(places)} files: at most {MOST} were expected")
    return sorted(places)


def _below(roots: Roots, place: str, part: str, *, named: bool, last: bool, budget: int) -> tuple[int, list[str]]:
    """How many names were looked at in a directory, and the paths of those that match one part of the pattern.

    ``named``: the directory was, and has to be there; ``last``: files are wanted, else directories.
    """
    try:
        fd = roots.open_dir(place, write=False)
    except JobFailed as failed:
        if named or failed.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return 1, []
    try:
        names = os.listdir(fd) if _GLOB.search(part) else [part]
        if len(names) > budget:
            raise JobFailed(errno.E2BIG, f"{place}: more than {LOOKED} names would have to be looked at")
        wanted = stat.S_ISREG if last else stat.S_ISDIR
        found = [name for name in names if _matches(name, part) and wanted(_mode(fd, name))]
    finally:
        os.close(fd)
    return len(names), [_path(place, name) for name in found]


def _matches(name: str, part: str) -> bool:
    if not _GLOB.search(part):
        return name == part
    return fnmatchcase(name, part.replace("[^", "[!")) and (part.startswith(".") or not name.startswith("."))


def _mode(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:  # gone since
        return 0


def _path(place: str, name: str) -> str:
    path = f"{place.rstrip('/')}/{name}"
    try:
        return volumespec.checked_path(path)
    except BadInput:
        shown = volumespec.printable(os.fsencode(path).decode("utf-8", "replace"))
        raise JobFailed(errno.EILSEQ, f"{shown} matches, and no job can be given such a name") from None
