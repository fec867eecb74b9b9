"""The steady clock stays near the last look at it, whatever Redis' clock shows."""

from __future__ import annotations

import pytest

from blockjobs.model.clock import UNWATCHED, ClockRecord, parse_clock

YEAR = 365 * 86_400_000
LAST = 1_800_000_000_000


@pytest.mark.parametrize(
    ("now", "steady"),
    [(LAST, LAST), (LAST + 700, LAST + 700), (LAST + YEAR, LAST + UNWATCHED), (LAST - YEAR, LAST), (LAST - 1, LAST)],
)
@pytest.mark.parametrize("jumps", [0, YEAR, -YEAR])
def test_it_goes_neither_back_nor_far_ahead_between_two_looks(now, steady, jumps):
    assert ClockRecord(jumps, LAST).steady(now + jumps) == steady


def test_before_the_first_look_it_is_redis_own_less_what_that_has_jumped():
    assert ClockRecord(5).steady(LAST) == LAST - 5


@pytest.mark.parametrize(
    ("record", "expected"),
    [(None, ClockRecord()), (b"7", ClockRecord(7)), (b"-7 12", ClockRecord(-7, 12)), (b"odd", ClockRecord()),
     (b"7 odd", ClockRecord()), (b"", ClockRecord())],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_that_of_a_new_registry(record, expected):
    assert parse_clock(record) == expected
