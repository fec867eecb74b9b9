"""What the finalizer remembers of its decisions never goes back, is never half written, and outlives a failed write."""

from __future__ import annotations

import json
import os
import time
from functools import partial

import pytest

from blockjobs.daemons.remembered import NAME, Remembered
from blockjobs.model.memory import DecisionsKnown


@pytest.fixture
def record(tmp_path):
    return tmp_path / "state" / NAME


@pytest.fixture
def remembered(record):
    record.parent.mkdir()
    return Remembered(record.parent)


def expect(check):
    """Wait until another thread has made something true."""
    until = time.monotonic() + 3
    while not check():
        assert time.monotonic() < until, "the record was not written"


def is_written(record, number):
    return record.exists() and json.loads(record.read_text())["number"] == number


def test_the_highest_decision_is_remembered_whatever_is_noted_after_it(remembered, record):
    for number in (2, 1):
        remembered.note("r", number)
    assert remembered.known == DecisionsKnown("r", 2)
    expect(partial(is_written, record, 2))
    assert Remembered(record.parent).known == DecisionsKnown("r", 2)


def test_a_finalizer_that_has_decided_nothing_yet_complains_of_no_missing_record(tmp_path, caplog):
    assert Remembered(tmp_path).known == DecisionsKnown("", 0)
    assert caplog.text == ""


def test_the_record_is_replaced_as_a_whole_and_never_half_written(remembered, record, tmp_path):
    remembered.note("r", 1)
    expect(partial(is_written, record, 1))
    os.link(record, tmp_path / "of before")
    remembered.note("r", 2)
    expect(partial(is_written, record, 2))
    assert is_written(tmp_path / "of before", 1), "the file of the earlier record was not touched"


def test_a_decision_that_could_not_be_written_keeps_no_later_one_from_being_written(remembered, record, caplog):
    record.parent.rmdir()
    remembered.note("r", 1)
    expect(lambda: "cannot be written" in caplog.text)
    record.parent.mkdir()
    remembered.note("r", 2)
    expect(partial(is_written, record, 2))
