"""Names: QEMU's rule for ids, and ours for hosts and runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from blockjobs.model import ids
from blockjobs.model.errors import BadInput


@pytest.mark.parametrize("text", ["id0", "id_2", "ok-._9", "A", "nightly-20261122T103000Z.web1-root", "a" * 200])
def test_these_are_job_ids(text):
    assert ids.job_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["0id", "", "   ", "123", "_id", "-id", ".id", "#id", "é", "idé", "a b", "a/b", "a\n", "a\0", "a:b", "a" * 201],
)
def test_these_are_not_and_are_refused_in_qemus_words(text):
    with pytest.raises(BadInput) as refused:
        ids.job_id(text)
    assert str(refused.value) == f"Invalid job ID {text!r}"  # on one line, whatever it has in it


@pytest.mark.parametrize("text", ["web1", "1", "a.example.org", "a_b-c", "a" * 100])
def test_these_are_hosts(text):
    assert ids.checked_host_name(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "-a", "a-", ".a", "a.", "a b", "a/b", "a:b", "ä", "a\n", "a" * 101])
def test_these_are_not_hosts(text):
    with pytest.raises(BadInput, match=r"invalid host name .* expected"):
        ids.checked_host_name(text)


@pytest.mark.parametrize("text", ["", "9lives", "a b", "ä", "a\n", "a" * 81])
def test_these_are_not_names_of_runs(text):
    with pytest.raises(BadInput, match=r"invalid run name .* expected"):
        ids.run_name(text)


def test_a_run_is_named_by_the_second_it_began_in_utc():
    at = datetime(2026, 11, 22, 11, 30, 0, 999999, timezone(timedelta(hours=1)))
    assert ids.run_id("nightly", at) == "nightly-20261122T103000Z"
    assert ids.job_id(ids.run_id(ids.run_name("a" * 80), datetime(2026, 1, 1, tzinfo=UTC)) + ".x")
