"""Names: the syntax of ids, and the errors for malformed ids.

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
INTERNAL: Final = "#"  # first character of internal run and job names; no user can enter such a name
LONGEST: Final = 200  # bytes; an id becomes part of a file name, and a path component holds 255 bytes


def job_id(text: str) -> JobId:
    """``text`` as a job id.

    Raises:
        BadInput: with QEMU's text, ``Invalid job ID '%s'``.
    """
    if not _WELLFORMED.fullmatch(text) or len(text) > LONGEST:
        raise BadInput(f"Invalid job ID {text!r}")
    return JobId(text)


def checked_host_name(text: str) -> Host:
    """``text`` as a host name (letters, digits, ``.``, ``-``, ``_``; at most 100 characters)."""
    if not _HOST.fullmatch(text) or len(text) > 100:
        raise BadInput(f"invalid host name {text!r}: letters, digits, '.', '-' and '_' were expected")
    return Host(text)


def run_name(text: str) -> str:
    """``text`` as the name of a run file, the first part of its run ids."""
    if not _WELLFORMED.fullmatch(text) or len(text) > 80:
        raise BadInput(f"invalid run name {text!r}: a letter, then letters, digits, '.', '-' and '_' were expected")
    return text


def free_name(name: str, taken: Container[str]) -> str:
    """``name``, or the first of ``name-2``, ``name-3``... that is not taken."""
    number = 1
    while (found := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return found


def internal_run(unique: str) -> RunId:
    """The id of an internal run; its job ids start with the run id, as for any run."""
    return RunId(f"{INTERNAL}{unique}")


def is_internal(name: str) -> bool:
    """Whether a run, a transaction or a job is internal: neither the name nor its events are ever shown."""
    return name.startswith(INTERNAL)


def run_id(name: str, at: datetime) -> RunId:
    """``nightly-20261122T103000Z``; ``at`` is any aware time, the id is in UTC."""
    return RunId(f"{name}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}")
