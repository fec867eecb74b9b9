"""What is stored can be read again, and says so where it cannot."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockjobs.model.jobs import Checkpoint
from blockjobs.registry.attempts import pack_checkpoint, unpack_checkpoint
from blockjobs.registry.codec import VERSION, pack_value, unpack_value

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.floats(allow_nan=False)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=20
)


@given(values)
def test_what_is_packed_comes_back(value):
    assert unpack_value(pack_value(value)) == value


def test_a_packed_value_says_its_version_first():
    assert pack_value({"a": 1})[:1] == VERSION == b"\x01"


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x02" + msgpack.packb(1), msgpack.packb({"a": 1})], ids=["empty", "0", "2", "bare"]
)
def test_a_version_that_is_not_known_is_refused(data):
    with pytest.raises(ValueError, match="stored value has format version"):
        unpack_value(data)


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_damaged_value_is_refused(cut):
    with pytest.raises(ValueError, match=r".*"):
        unpack_value(pack_value({"a": [1, 2]})[:cut])


def test_text_and_bytes_stay_what_they_are():
    assert unpack_value(pack_value(["ä", b"\xff"])) == ["ä", b"\xff"]


@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), max_size=20).map(tuple), st.text())
def test_a_checkpoint_comes_back(ranges, staging):
    point = Checkpoint(staging, ranges)
    assert unpack_checkpoint(pack_checkpoint(point)) == point


def test_no_checkpoint_is_an_empty_one():
    assert unpack_checkpoint(b"") == Checkpoint()
