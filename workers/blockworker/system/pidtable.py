"""A table that a process shares with its later children: a note for every process, by process id."""

from __future__ import annotations

import mmap
from typing import Final

_PIDS: Final = 1 << 16


class PidTable:
    """Notes by process id. ``room``: bytes for the note of one process. A note stays when its process ends."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._notes = mmap.mmap(-1, _PIDS * room)

    def note(self, pid: int, text: bytes) -> None:
        """Replace the note of a process; ``text`` contains no NUL byte."""
        at = pid % _PIDS * self._room
        self._notes[at : at + self._room] = text[: self._room].ljust(self._room, b"\0")

    def of(self, pid: int) -> bytes:
        """The note of a process; empty if the process has none."""
        at = pid % _PIDS * self._room
        return self._notes[at : at + self._room].rstrip(b"\0")
