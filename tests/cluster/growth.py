"""Whether what a process holds grows: samples of processes, and one judgement over them that noise does not move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import psutil

MIB: Final = 1 << 20
Series = Sequence[tuple[float, float]]  # (seconds, value), in the order of time


@dataclass(frozen=True, slots=True)
class Growth:
    """The level of a series in its first and in its last third, and its rise an hour."""

    start: float
    end: float
    per_hour: float


def growth(series: Series) -> Growth:
    """How a series moves, by the medians of its first and its last third.

    A few samples taken at a bad moment move nothing, and a sawtooth moves it by a fraction of a tooth: children that
    are replaced, and runs that are forgotten in batches, make one.
    """
    third = len(series) // 3
    assert third, f"{len(series)} samples are too few"
    (first, start), (last, end) = _middle(series[:third]), _middle(series[-third:])
    return Growth(start, end, (end - start) / (last - first) * 3600)


def grows(series: Series, most: float) -> bool:
    """Whether a series rises by more than ``most``."""
    found = growth(series)
    return found.end - found.start > most


def _middle(part: Series) -> tuple[float, float]:
    return median(at for at, _ in part), median(value for _, value in part)


@dataclass(frozen=True, slots=True)
class Held:
    """What some processes hold together.  ``uss``: bytes that nobody else has."""

    processes: int
    uss: int
    fds: int
    threads: int


def held(processes: Iterable[psutil.Process]) -> Held:
    """Those that are gone when it is their turn hold nothing."""
    found = []
    for process in processes:
        try:
            with process.oneshot():
                found.append((process.memory_full_info().uss, process.num_fds(), process.num_threads()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # gone, or going: a zombie shows nothing
            continue
    return Held(len(found), *(sum(row[column] for row in found) for column in range(3)))
