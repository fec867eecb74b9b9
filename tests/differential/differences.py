"""The differences from QEMU that stay, by the name under which docs/qmp-differences.md gives the reason.

Each says what of a transcript it takes out of the comparison; a story names those that it meets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

Lines = list[str]
REFUSED: Final = "A refused job never was"
BYTES: Final = "Progress counts bytes"
SYNCED: Final = "Mirrors say whether they are synced"
UNFIT: Final = "A mirror that does not fit never runs"
BUSY: Final = "A busy volume is told in one way"


def without(pattern: str) -> Callable[[Lines], Lines]:
    """Lines of this look are not compared."""
    return lambda lines: [line for line in lines if not re.search(pattern, line)]


def masked(pattern: str) -> Callable[[Lines], Lines]:
    """What looks like this is not compared; the rest of its line is."""
    return lambda lines: [re.sub(pattern, "(excused)", line) for line in lines]


def removed(text: str) -> Callable[[Lines], Lines]:
    """This text is not compared, nor whether it is there."""
    return lambda lines: [line.replace(text, "") for line in lines]


def without_jobs_that_never_ran(lines: Lines) -> Lines:
    """Less the lives of jobs from created to null that were never running."""
    text = "\n".join(lines)
    return re.sub(r"(?m)^(\S+): created\n(?:\1: (?:aborting|concluded)\n)*\1: null(\n|\Z)", "", text).splitlines()


DIFFERENCES: Final[dict[str, Callable[[Lines], Lines]]] = {
    REFUSED: without_jobs_that_never_ran,
    BYTES: masked(r"len=\d+ offset=\d+"),
    SYNCED: removed("'actively-synced': False, "),
    UNFIT: without(r"^j0: running$"),
    BUSY: masked(
        r"Could not create node: Permission conflict .*|Permission conflict on node .*|Device '\(null\)' is in use|"
        r"Failed to get (shared )?\"\w+\" lock|Node '[\w/]+' is busy: .*"
    ),
}


def excused(lines: Lines, names: tuple[str, ...]) -> Lines:
    for name in names:
        lines = DIFFERENCES[name](lines)
    return lines
