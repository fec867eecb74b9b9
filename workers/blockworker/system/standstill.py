"""Calls of a process that do not return, with their paths, as the kernel shows calls in ``/proc``.

``/proc/PID/task/TID/syscall`` shows the call in which a thread waits, with arguments: nearly every call that can hang
on a file system has a descriptor or a path as first argument. The process itself can read the file and, if the kernel
allows the process to be traced, the parent can.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

AT_FDCWD: Final = 0xFFFFFF9C  # as the low 32 bits of a register show it
LONGEST_PATH: Final = 4096  # bytes
# Calls whose first argument is a number, but no descriptor: sleeps, select, wait4, waitid.
_NO_DESCRIPTOR: Final = {
    "x86_64":  frozenset({23, 61, 230, 247, 270}),
    "aarch64": frozenset({72, 95, 115, 260}),
}  # fmt: skip
_COPY_RANGE: Final = {"x86_64": 326, "aarch64": 285}  # copy_file_range: the third argument is the target


@dataclass(frozen=True, slots=True)
class KernelCall:
    """A thread's current call. ``text``: the kernel's line, constant as long as the call lasts."""

    pid: int
    tid: int
    text: str
    path: str


@dataclass(frozen=True, slots=True)
class StandingCall:
    """A call that has not returned for some time: the path, and for how many seconds the watch has seen the call."""

    path: str
    seconds: float


class Watch:
    """Notices lasting calls, by comparing calls with the calls seen before. For use by a single thread."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self._seen: dict[tuple[int, int, str], float] = {}

    def look(self, pids: Iterable[int]) -> list[StandingCall]:
        """The calls of these processes that have lasted for the patience, the longest first."""
        now = self._clock()
        calls = {(call.pid, call.tid, call.text): call for pid in pids for call in path_calls(pid)}
        self._seen = {key: self._seen.get(key, now) for key in calls}
        lasting = [(now - since, key) for key, since in self._seen.items() if now - since >= self._patience]
        return [StandingCall(calls[key].path, seconds) for seconds, key in sorted(lasting, reverse=True)]


def path_calls(pid: int) -> Iterator[KernelCall]:
    """The current calls on paths of all threads of a process and of its descendants."""
    try:
        tids = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return
    for tid in tids:
        place = f"/proc/{pid}/task/{tid}"
        with suppress(OSError, ValueError):  # the thread has ended, or the kernel does not tell
            with open(f"{place}/syscall", encoding="ascii") as file:
                text = file.read().strip()
            if path := _path_of(pid, text):
                yield KernelCall(pid, tid, text, path)
        with suppress(OSError):
            with open(f"{place}/children", encoding="ascii") as file:
                children = file.read().split()
            for child in children:
                yield from path_calls(int(child))


def _path_of(pid: int, text: str) -> str:
    """The path of a call; "" if the call has no path, or the thread runs."""
    words = text.split()
    if len(words) < 4 or words[0].startswith("-"):
        return ""
    machine = platform.machine()
    number, first, second, third = int(words[0]), *(int(word, 16) for word in words[1:4])
    if number in _NO_DESCRIPTOR.get(machine, ()):
        return ""
    if number == _COPY_RANGE.get(machine):
        first = third
    if first & 0xFFFFFFFF == AT_FDCWD:
        return _string_at(pid, second)
    if first < 1 << 20:
        return _descriptor_path(os.readlink(f"/proc/{pid}/fd/{first}"))
    return _string_at(pid, first)


def _string_at(pid: int, address: int) -> str:
    """The absolute path at an address of a process; "" if the address holds something else."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        raw = memory.read(1)
        if raw != b"/":
            return ""
        while b"\0" not in raw and len(raw) < LONGEST_PATH:  # never beyond the page: the next may not exist
            raw += memory.read(min(256, LONGEST_PATH - (address + len(raw)) % LONGEST_PATH))
    return os.fsdecode(raw.partition(b"\0")[0])


def _descriptor_path(link: str) -> str:
    """The path of a descriptor; "" for pipes, sockets and memory."""
    return link.removesuffix(" (deleted)") if link.startswith("/") and not link.startswith("/memfd:") else ""
