"""Calls for many values at once, in threads that can be given up.

A call that hangs in the kernel holds up no other group of values. Values on the same file system share threads: a
hanging file system uses up only the threads of its values. A thread given up stays until the call returns: the process
should end instead of going on.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Final, Generic, TypeVar

from blockworker.system.standstill import path_calls

NAME: Final = "crew"  # the name of the crew's threads
ENDING: Final = 0.1  # seconds for a finished thread to end
WIDTH: Final = 8  # threads per group

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
R = TypeVar("R")


class Crew(Generic[K, V, R]):
    """Calls ``act`` for every value. ``groups``: the group of every key; the values of a group share threads."""

    def __init__(self, act: Callable[[V], R], values: Mapping[K, V], groups: Mapping[K, Hashable]) -> None:
        self._act, self._values = act, values
        self._news = threading.Condition()
        self._results: dict[K, R] = {}
        self._at_work: dict[K, int] = {}  # key -> id of the working thread, as the kernel numbers threads
        self._raised: list[Exception] = []
        self._over = False
        waiting: dict[Hashable, deque[K]] = {}
        for key in values:
            waiting.setdefault(groups[key], deque()).append(key)
        for queue in waiting.values():
            for _ in range(min(WIDTH, len(queue))):
                threading.Thread(target=self._work, args=(queue,), name=NAME, daemon=True).start()

    @property
    def keys(self) -> frozenset[K]:
        """The keys of the crew's values."""
        return frozenset(self._values)

    def wait(self, keys: Collection[K], until: float) -> dict[K, R]:
        """Results of these keys by ``until`` (monotonic clock). Raises an error raised by ``act``."""
        with self._news:
            self._news.wait_for(
                lambda: self._raised or all(key in self._results for key in keys),
                timeout=max(0.0, until - time.monotonic()),
            )
            if self._raised:
                raise self._raised[0]
            return {key: self._results[key] for key in keys if key in self._results}

    def give_up(self) -> dict[K, str]:
        """Begin no further call; return the unfinished keys, with the hanging path of the call ("" if not known)."""
        with self._news:
            self._over = True
            left = {key: self._at_work.get(key, 0) for key in self._values if key not in self._results}
        paths = {call.tid: call.path for call in path_calls(os.getpid())} if left else {}
        return {key: paths.get(thread, "") for key, thread in left.items()}

    def _work(self, queue: deque[K]) -> None:
        while True:
            with self._news:
                if self._over or not queue:
                    return
                key = queue.popleft()
                self._at_work[key] = threading.get_native_id()
            try:
                result = self._act(self._values[key])
            except Exception as error:
                with self._news:
                    self._raised.append(error)
                    self._over = True
                    self._news.notify_all()
                return
            with self._news:
                self._results[key] = result
                del self._at_work[key]
                self._news.notify_all()


def left_behind() -> bool:
    """Whether threads given up are still in a call."""
    threads = [thread for thread in threading.enumerate() if thread.name == NAME]
    for thread in threads:
        thread.join(ENDING)
    return any(thread.is_alive() for thread in threads)
