"""The processes of a copy worker: one more for each attempt that hangs, up to twice its slots."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from blockworker.attempt import spares
from blockworker.attempt.spares import Mark

PIDS = (101, 102, 103, 104)
SIZES = {"none hangs": (0, 2, 2), "one hangs": (1, 2, 3), "both hang": (2, 2, 4), "four hang": (4, 4, 4),
         "one hangs no more": (1, 4, 3), "none hangs any more": (0, 4, 2)}  # fmt: skip


@pytest.mark.parametrize(("hanging", "before", "after"), SIZES.values(), ids=SIZES)
def test_a_worker_of_two_slots_has_a_process_more_for_each_attempt_that_hangs_and_four_at_most(hanging, before, after):
    pool = SimpleNamespace(num_processes=before)
    pool._pool = SimpleNamespace(_pool=[SimpleNamespace(pid=pid) for pid in PIDS[:before]])
    pool.grow = lambda more: setattr(pool, "num_processes", pool.num_processes + more)
    pool.shrink = lambda fewer: setattr(pool, "num_processes", pool.num_processes - fewer)
    for pid in PIDS:
        spares._MARKS.note(pid, bytes([Mark.HANGS if pid in PIDS[:hanging] else Mark.COPIES]))
    calls = []
    hub = SimpleNamespace(call_repeatedly=lambda _, call, *words: calls.append((call, words)))
    spares.follow_hanging_attempts(SimpleNamespace(pool=pool, hub=hub), 2)
    ((call, words),) = calls
    call(*words)
    assert pool.num_processes == after
