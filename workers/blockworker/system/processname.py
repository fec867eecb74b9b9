"""The name of a copy worker's process: the name shows the watcher, a separate process, the attempt that runs.

The kernel keeps the name (``/proc/PID/comm``) and shows it to every user, in any state of the process; no disk is
touched. Rule: a process has the name of an attempt from before the claim until after the attempt's end, and a process
with another name has no right to the claim.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

PREFIX: Final = "bj:"
IDLE: Final = "bj:idle"  # the name of a process that has run an attempt, and runs none now
LONGEST: Final = 15  # characters that the kernel keeps


@contextmanager
def named_after(attempt: str) -> Iterator[None]:
    """Give this process the name of an attempt until the context ends."""
    _rename_process(name_of(attempt))
    try:
        yield
    finally:
        _rename_process(IDLE)


def name_of(attempt: str) -> str:
    """The name of a process that runs an attempt: as much of the attempt's uuid as the kernel keeps."""
    return f"{PREFIX}{attempt}"[:LONGEST]


def may_run(pid: int, attempt: str) -> bool:
    """Whether a process may run an attempt, by its name; a name without the prefix (of an earlier version) counts.

    Raises OSError: the process does not exist.
    """
    name = Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    return not name.startswith(PREFIX) or name == name_of(attempt)


def _rename_process(name: str) -> None:
    try:
        Path(f"/proc/{os.getpid()}/comm").write_text(name)
    except OSError as error:  # then the watcher knows the process by its id and its start alone
        log.warning("this process cannot be named %s: %s", name, error)
