"""Sets of byte ranges: copied, durable or missing bytes. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """Half-open ranges ``(start, end)``, in order, neighbours merged."""

    __slots__ = ("_ends", "_starts", "_total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._total = 0
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add a range; bytes of it that are already in the set stay."""
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        if ends and ends[-1] == start:  # the usual case: the next chunk
            ends[-1] = end
            self._total += end - start
            return
        low = bisect_left(ends, start)  # the first range that touches, or lies behind
        high = bisect_right(starts, end)  # the first that begins beyond
        if low < high:
            start, end = min(start, starts[low]), max(end, ends[high - 1])
            self._total -= sum(ends[low:high]) - sum(starts[low:high])
        starts[low:high] = [start]
        ends[low:high] = [end]
        self._total += end - start

    def covers(self, start: int, end: int) -> bool:
        """Whether the whole range is in the set."""
        if start >= end:
            return True
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._ends[index] >= end

    def meets(self, start: int, end: int) -> bool:
        """Whether any byte of the range is in the set."""
        index = bisect_right(self._ends, start)
        return start < end and index < len(self._starts) and self._starts[index] < end

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of the range that are not in the set, in order; as at the begin of the iteration."""
        index = bisect_right(self._ends, start)
        for have, till in list(zip(self._starts[index:], self._ends[index:], strict=True)):
            if have >= end:
                break
            if start < have:
                yield start, have
            start = max(start, till)
        if start < end:
            yield start, end

    def total(self) -> int:
        """Number of bytes in the set."""
        return self._total

    @property
    def end(self) -> int:
        """The end of the last range; 0 for an empty set."""
        return self._ends[-1] if self._ends else 0

    @property
    def count(self) -> int:
        """Number of ranges, which are separated by bytes that are not in the set."""
        return len(self._starts)

    def to_tuple(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self._starts, self._ends, strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self.to_tuple() == other.to_tuple()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"RangeSet({list(self.to_tuple())})"
