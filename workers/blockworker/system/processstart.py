"""The start time of a process, by the clock since the boot of the machine, which no user can set.

The start time, the pid and the boot together tell a process from every other process. psutil computes the start from
the wall time of the boot, and that wall time changes with each step of the clock.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import psutil

_FIELD: Final = 19  # index of ``starttime``, counted from the state behind the name (proc_pid_stat(5))
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_WALL_TIME: Final = 1e9  # seconds; earlier versions noted the wall time of the start: no machine runs for so long


def read_start(pid: int) -> float:
    """Seconds between the boot and the start of a process. Raises OSError: the process does not exist."""
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return int(stat[stat.rindex(")") + 2 :].split()[_FIELD]) * _TICK


def has_started_at(pid: int, started: float) -> bool:
    """Whether the process of a pid started at ``started``.

    Raises OSError, psutil.NoSuchProcess: no process has the pid.
    """
    if started > _WALL_TIME:
        return abs(psutil.Process(pid).create_time() - started) < 0.05
    return abs(read_start(pid) - started) < _TICK / 2
