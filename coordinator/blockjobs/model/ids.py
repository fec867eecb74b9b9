"""Names: which strings are ids, and what is wrong with one that is not.

QEMU's rule (``id_wellformed``): an ASCII letter, then letters, digits and ``-._``.
"""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import UTC, datetime
from typing import Final, NewType

from blockjobs.model.errors import BadInput

Host = NewType("Host", str)
JobId = NewType("JobId", str)
TxnId = NewType("TxnId", str)
RunId = NewType("RunId", str)

_WELLFORMED: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
INTERNAL: Final = "#"  # begins the names of internal runs and jobs: no user can say one
LONGEST: Final = 200  # bytes; an id becomes part of file names, of which a component holds 255


def job_id(text: str) -> JobId:
    """``text`` as a job id.

    Raises:
        BadInput: with QEMU's text, ``Invalid job ID '%s'``.
    """
    if not _WELLFORMED.fullmatch(text) or len(text) > LONGEST:
        raise BadInput(f"Invalid job ID {text!r}")
    return JobId(text)


def host(text: str) -> Host:
    """``text`` as a host name (letters, digits, ``.``, ``-``, ``_``; at most 100 characters)."""
    if not _HOST.fullmatch(text) or len(text) > 100:
        raise BadInput(f"invalid host name {text!r}: letters, digits, '.', '-' and '_' were expected")
    return Host(text)


def run_name(text: str) -> str:
    """``text`` as the name of a run file, the first part of its run ids."""
    if not _WELLFORMED.fullmatch(text) or len(text) > 80:
        raise BadInput(f"invalid run name {text!r}: a letter, then letters, digits, '.', '-' and '_' were expected")
    return text


def free(name: str, taken: Container[str]) -> str:
    """``name``, or the first of ``name-2``, ``name-3``... that is not taken."""
    number = 1
    while (found := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return found


def internal_run(unique: str) -> RunId:
    """The name of a run that nobody sees; its jobs are named after it, as those of any run."""
    return RunId(f"{INTERNAL}{unique}")


def is_internal(name: str) -> bool:
    """Whether a run, a transaction or a job is internal: invisible at every face, and so are its events."""
    return name.startswith(INTERNAL)


def run_id(name: str, at: datetime) -> RunId:
    """``nightly-20261122T103000Z``; ``at`` is any aware time, the id is UTC."""
    return RunId(f"{name}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}")
