"""The parts of a file that may hold data: they make zeros cheap on a file that is known to be empty."""

from __future__ import annotations


class Traces:
    """The parts of a file in which a write was begun, in units of ``unit`` bytes. Any thread may call any method.

    A part is marked before the write begins and is never unmarked: a write that failed half-way, was cut short, or was
    followed by an error of another thread cannot be forgotten. ``fresh`` False: an earlier process may have written
    anywhere.
    """

    def __init__(self, size: int, unit: int, *, fresh: bool) -> None:
        self._unit = unit
        self._marks = bytearray(-(-size // unit)) if fresh else None

    def mark(self, offset: int, length: int) -> None:
        """Mark the bytes of a write that is about to begin."""
        if self._marks is not None and length:
            first, last = offset // self._unit, -(-(offset + length) // self._unit)
            self._marks[first:last] = b"\1" * (last - first)  # equal length: one step of the interpreter

    def may_hold(self, offset: int, length: int) -> bool:
        """Whether these bytes may be anything else than zeros."""
        if self._marks is None:
            return length > 0
        return self._marks.find(1, offset // self._unit, -(-(offset + length) // self._unit)) >= 0
