"""The names of our files among foreign files: no pattern, target or resize may use one of our names."""

from __future__ import annotations

import errno
import re
from typing import Final

from blockjobs.model.errors import JobFailed
from blockworker.records.folder import FOLDER

SUFFIXES: Final = (".part", ".manifest.json", ".blake3")  # of staging files, and of files beside a published image
# ``.NAME.`` and eight digits of a staging file's uuid, then the kind of file; ``.NAME.reserved`` keeps a target's name.
_HIDDEN: Final = re.compile(r"\..+\.(?:[0-9a-f]{8}\..+|reserved)", re.DOTALL)


def is_ours(path: str) -> bool:
    """Whether a path leads to a file of ours: a staging file, a cut, a journal, digests or a manifest."""
    *above, name = path.split("/")
    beside = name.endswith(SUFFIXES[1:])  # our staging files are hidden: a visible NAME.part is a user's file
    return FOLDER in above or name == FOLDER or beside or _HIDDEN.fullmatch(name) is not None


def expect_foreign(path: str) -> None:
    """Refuse a path to a file of ours.  Raises JobFailed."""
    if is_ours(path) or path.endswith(SUFFIXES):
        raise JobFailed(errno.EACCES, f"{path} is a file of blockjobs' own: an image was expected")
