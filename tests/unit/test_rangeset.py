"""Sets of ranges against the plainest model: a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockworker.volumes.extents import RangeSet

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)))


@given(RANGES, st.integers(0, 40), st.integers(0, 40))
def test_it_is_a_set_of_numbers(ranges, start, end):
    model = {n for first, last in ranges for n in range(first, last)}
    ours = RangeSet(ranges)
    asked = set(range(start, end))
    assert {n for first, last in ours.to_tuple() for n in range(first, last)} == model
    assert ours.total() == len(model)
    assert ours.covers(start, end) == (asked <= model)
    missing = list(ours.missing(start, end))
    assert {n for first, last in missing for n in range(first, last)} == asked - model
    assert missing == sorted(missing)


@given(RANGES)
def test_neighbours_are_merged_and_order_does_not_matter(ranges):
    ours = RangeSet(ranges)
    flat = [edge for pair in ours.to_tuple() for edge in pair]
    assert flat == sorted(set(flat))
    assert ours == RangeSet(reversed(ranges)) == RangeSet(ours.to_tuple())


def test_a_set_changes_and_so_has_no_hash():
    with pytest.raises(TypeError):
        hash(RangeSet([(0, 1)]))
    assert repr(RangeSet([(0, 1), (1, 2)])) == "RangeSet([(0, 2)])"
