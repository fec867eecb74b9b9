"""The guard: a small process that ends the children of a supervisor killed with SIGKILL.

The kernel then sends every child SIGTERM (``spawn``); the guard ends disobedient children, and grandchildren.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

PATIENCE: Final = 10.0  # seconds between the supervisor's death and SIGKILL
_HELD: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


class Guard:
    """A process that learns every process group through a pipe; the pipe ends when the supervisor ends.

    The guard is forked, not started: it shares the supervisor's locks, which thereby last until the last child is gone.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._fork()

    def add(self, group: int) -> None:
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def drop(self, group: int) -> None:
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def renew(self) -> None:
        """Fork a new guard if the old guard was killed."""
        if os.waitpid(self._pid, os.WNOHANG)[0]:
            os.close(self._pipe)
            self._fork()
            for group in self._groups:
                self._tell(f"+{group}\n")

    @property
    def pid(self) -> int:
        return self._pid

    def dismiss(self) -> None:
        """End the guard; to be called when every group is gone."""
        os.close(self._pipe)
        os.waitpid(self._pid, 0)

    def _fork(self) -> None:
        ours, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._pipe)
                _watch_groups(ours)
            finally:
                os._exit(0)
        os.close(ours)

    def _tell(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the guard was killed: ``renew`` tells its successor everything
            os.write(self._pipe, line.encode())


def _watch_groups(pipe: int) -> None:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # a reader of the supervisor's output sees the end when the supervisor ends
        os.dup2(null, stream)
    groups: set[int] = set()
    with os.fdopen(pipe, encoding="ascii") as told:
        for line in told:
            (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    end_process_groups(groups, time.monotonic() + PATIENCE)


def end_process_groups(groups: Iterable[int], deadline: float) -> None:
    """Wait for process groups to be gone; send SIGKILL to the remaining groups at the deadline."""
    left = set(groups)
    while (left := left & living_process_groups()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in left:
        kill_process_group(group)


def living_process_groups() -> set[int]:
    """The process groups with a member that is not a zombie (not every container's init collects zombies)."""
    groups = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat:
            state, _, group, *_ = stat.read().rpartition(b")")[2].split()
            if state not in (b"Z", b"X"):
                groups.add(int(group))
    return groups


def kill_process_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
