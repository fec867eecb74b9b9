"""The ids of jobs that a run file names by source only.

Rule: an id depends on the file, the host and the source's own path, never on neighbouring files of the host.  The id
stays when a neighbour comes or goes, because history and keep rules go by the id.  A written source keeps its short
name, with a number if the run file has the name twice.  A source found by a pattern is named by the parts of the path
left open by the pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from blake3 import blake3

from blockjobs.cli.runfile.fields import GLOB

WORD: Final = 60  # characters of a source's name in the id of a job
_APART: Final = "--"  # between the names of two directories, and of the file
_HASH: Final = 8  # hexadecimal digits of a path's digest, for a name that does not determine the path
_EXTENSION: Final = re.compile(r"\.[A-Za-z0-9_-]+$")


def word_of(path: str) -> str:
    """A source's name without its ending, as a word for an id."""
    return _plain_name(PurePosixPath(path).stem)


def word_of_match(pattern: str, path: str, others: Iterable[str]) -> str:
    """The word for a file matched by a pattern: the parts of the path left open by the pattern.

    ``others``: the shapes of the remaining words (``shape_of``).  If the word has the shape of another word, was cut,
    or has lost a character, the word does not determine the path: a digest of the path follows.
    """
    words = _open_parts(pattern, path)
    joined = _APART.join(words)
    plain = _plain_name(joined)
    clear = len(words) == 1 or not any(_APART in word or word.strip("-") != word for word in words)
    if clear and plain == joined and not any(fnmatchcase(plain, shape) for shape in others):
        return plain
    return f"{plain}-{blake3(path.encode(errors='surrogateescape')).hexdigest()[:_HASH]}"


def shape_of(source: str) -> str:
    """The shape of a source's words: the word of a written source, or a pattern of words."""
    if not GLOB.search(source):
        return word_of(source)
    return _APART.join(_open_parts(source, source)).replace("[^", "[!")


def _open_parts(pattern: str, path: str) -> list[str]:
    """The parts of a path left open by a pattern, and the file's name without an ending given in the pattern."""
    *above, (last, name) = zip(pattern.split("/"), path.split("/"), strict=True)
    ending = _EXTENSION.search(last)
    return [part for said, part in above if GLOB.search(said)] + [name.removesuffix(ending[0]) if ending else name]


def _plain_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:WORD] or "volume"
