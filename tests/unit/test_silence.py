"""Silence is judged by the observer's own clock, and only while the observer was there to listen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockjobs.daemons.silence import GAP, Silence


def listen(silence, looks, counters=None):
    """The verdict of the last of these looks, by default at counters that stand still."""
    for at in looks:
        verdict = silence.look(at, counters or {"web1": 1})
    return verdict


def test_who_stands_still_for_longer_than_the_limit_is_silent_and_not_before():
    silence = Silence(6.0)
    assert listen(silence, [100, 101, 102, 103, 104, 105, 106]) == set()
    assert listen(silence, [106.1]) == {"web1"}


def test_a_counter_that_moves_starts_again_whatever_it_shows():
    silence = Silence(6.0)
    for at, count in enumerate([1, 1, 1, 1, 1, 7, 7, 7, 7, 7, 3, 3, 3, 3]):
        assert silence.look(at, {"web1": count}) == set()


def test_each_is_judged_by_itself():
    silence = Silence(2.0)
    for at in range(4):
        verdict = silence.look(at, {"alive": at, "silent": 0, "back": max(at, 2)})
    assert verdict == {"silent"}


@pytest.mark.parametrize(("pause", "verdict"), [(GAP, {"web1"}), (GAP + 0.1, set())], ids=["short", "long"])
def test_a_gap_between_two_looks_says_nothing_about_the_observed(pause, verdict):
    silence = Silence(3.0)
    listen(silence, [0, 1, 2])
    assert listen(silence, [2 + pause]) == verdict


def test_after_a_gap_the_whole_limit_has_to_pass_again():
    silence = Silence(3.0)
    listen(silence, [0, 1, 2, 3])
    assert listen(silence, [100, 102, 103]) == set()
    assert listen(silence, [103.1]) == {"web1"}


def test_a_restart_of_redis_starts_every_count_again():
    silence = Silence(3.0)
    listen(silence, [0, 1, 2, 3])
    silence.restart()
    assert listen(silence, [3.5, 4, 5, 6.5]) == set()
    assert listen(silence, [6.6]) == {"web1"}


def test_who_is_gone_is_forgotten_and_begins_anew_when_it_is_back():
    silence = Silence(2.0)
    listen(silence, [0, 1])
    assert silence.look(2, {}) == set()
    assert listen(silence, [3, 4, 5]) == set()
    assert listen(silence, [5.1]) == {"web1"}


def test_another_token_is_another_attempt():
    silence = Silence(2.0)
    assert listen(silence, [0, 1, 2], {"job": (1, 5)}) == set()
    assert listen(silence, [3], {"job": (2, 5)}) == set()


STEPS = st.integers(1, 20 * 64).map(lambda parts: parts / 64)  # seconds that sums and differences keep exactly


@given(st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=60))
def test_nobody_is_silent_who_was_not_watched_in_silence_for_the_limit(looks):
    silence = Silence(6.0)
    now, count, since = 0.0, 0, None
    for step, beats in looks:
        now += step
        if beats or step > GAP or since is None:
            since = now
        count += beats
        assert silence.look(now, {"h": count}) == ({"h"} if now - since > 6.0 else set())
