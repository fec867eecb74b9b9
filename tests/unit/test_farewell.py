"""A copy worker that is told to stop waits for attempts that go on, and for none that hangs."""

from __future__ import annotations

import pytest

from blockworker.attempt.farewell import LAST_COPIES, processes_to_give_up
from blockworker.attempt.spares import Mark

SOON, LATE = LAST_COPIES - 0.1, LAST_COPIES


@pytest.mark.parametrize(
    ("marks", "waited", "given_up"),
    [
        ({1: Mark.HANGS, 2: Mark.IDLE}, LATE, [1]),
        ({1: Mark.HANGS, 2: Mark.HANGS}, LATE, [1, 2]),
        ({1: Mark.HANGS, 2: Mark.IDLE}, SOON, []),
        ({1: Mark.HANGS, 2: Mark.COPIES}, LATE, []),
        ({1: Mark.COPIES}, LATE, []),
        ({1: Mark.IDLE}, LATE, []),
        ({}, LATE, []),
    ],
    ids=["one hangs", "all hang", "too soon", "another one parks", "one parks", "none", "all gone"],
)  # fmt: skip
def test_what_hangs_is_given_up_when_nothing_else_copies(marks, waited, given_up):
    assert processes_to_give_up(marks, waited) == given_up
