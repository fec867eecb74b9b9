"""Work on several members at once, with shared waits for the disk.

The work on a member is a generator. Before a step that needs durable files, the generator yields the files and
directories in question. ``do_together`` brings every member up to the next yield, makes the yielded files of every
member durable at once, and goes on. A disk makes a hundred small files durable in little more time than a single file,
if asked at the same time: one after the other took 3.4 ms each on ext4, sixteen at a time 0.3 ms.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

Durably: TypeAlias = Generator[Sequence[int], None, T]  # yields open files; T: the result

_THREADS: Final = 16  # syncs at a time
_ALONE: Final = 3  # files made durable in sequence: threads would take longer


def do_alone(work: Durably[T]) -> T:
    """Do the work on one member alone; return the result."""
    end = do_together([work])[0]
    if isinstance(end, Exception):
        raise end
    return end


def do_together(works: Iterable[Durably[T]], seconds: float = math.inf) -> list[T | Exception]:
    """Do the work on every member, to the end; return every member's result, or the error of the work.

    Only work that can begin within ``seconds`` is begun, but at least for one member; the rest is not in the result. A
    file that cannot be made durable is an error (OSError) of the members that named the file, and of no other member.
    """
    begun: list[Durably[T]] = []
    ends: dict[int, T | Exception] = {}
    named: dict[int, Sequence[int]] = {}

    def go_on(number: int, advance: Callable[[], Sequence[int]]) -> None:
        try:
            named[number] = advance()
        except StopIteration as end:
            ends[number] = end.value
        except Exception as error:
            ends[number] = error

    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            until = time.monotonic() + seconds
            for work in works:
                begun.append(work)
                go_on(len(begun) - 1, partial(next, work))
                if time.monotonic() >= until:
                    break
            while named:
                waiting, failed = [*named], _make_durable(named, threads)
                named.clear()
                for number in waiting:
                    work = begun[number]
                    go_on(number, partial(work.throw, failed[number]) if number in failed else partial(next, work))
        finally:
            for work in begun:
                work.close()
    return [ends[number] for number in range(len(begun))]


def _make_durable(named: Mapping[int, Sequence[int]], threads: ThreadPoolExecutor) -> dict[int, OSError]:
    """Make the named files of the members durable; return the errors, by the members' numbers."""
    members: dict[tuple[int, int], list[int]] = {}
    files: dict[tuple[int, int], int] = {}
    for number, fds in named.items():
        for fd in fds:
            st = os.fstat(fd)
            key = st.st_dev, st.st_ino  # members have directories in common
            files.setdefault(key, fd)
            members.setdefault(key, []).append(number)
    errors = [*(map if len(files) <= _ALONE else threads.map)(_try_sync, files.values())]
    return {
        number: error for key, error in zip(files, errors, strict=True) if error is not None for number in members[key]
    }


def _try_sync(fd: int) -> OSError | None:
    try:
        os.fsync(fd)
    except OSError as error:
        return error
    return None
