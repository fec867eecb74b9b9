"""The environment says how long things are kept, and nonsense in it is refused by name."""

from __future__ import annotations

import pytest

from blockjobs.model.errors import BadInput
from blockjobs.settings import DAY, find_url, read_settings

RUNS, EVENTS = "BLOCKJOBS_KEEP_RUNS_DAYS", "BLOCKJOBS_KEEP_EVENTS_DAYS"


def test_runs_are_kept_for_ninety_days_and_events_for_seven() -> None:
    assert read_settings().keep == (90 * DAY, 7 * DAY)


def test_days_may_have_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNS, "30")
    monkeypatch.setenv(EVENTS, "0.5")
    assert read_settings().keep == (30 * DAY, DAY // 2)


@pytest.mark.parametrize("days", ["0", "-1", "week", "", "nan", "inf"])
@pytest.mark.parametrize("name", [RUNS, EVENTS])
def test_what_is_no_time_is_refused(name: str, days: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, days)
    with pytest.raises(BadInput, match=name):
        read_settings()


def test_every_command_names_the_variable_that_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNS, "week")
    with pytest.raises(BadInput, match=RUNS):
        find_url()
