"""The account with a clock that is handed in; the waiting with real threads and no sleep."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockworker.copy.throttle import SLICE, Account, Throttle

MIB = 1 << 20
MOST = (1 << 63) - 1  # bytes a second: the largest limit that can be given


def test_without_a_limit_everything_goes_at_once():
    account = Account()
    assert [account.delay(0.0, MIB) for _ in range(100)] == [0.0] * 100


def test_one_chunk_may_overrun_and_is_then_paid_back():
    account = Account(speed=MIB)
    assert account.delay(0.0, 4 * MIB) == 0.0
    assert account.delay(0.0, MIB) == pytest.approx(4 - SLICE)
    assert account.delay(2.0, MIB) == pytest.approx(2 - SLICE)
    assert account.delay(4.0, MIB) == 0.0


def test_asking_too_early_costs_nothing_and_forgets_nothing():
    account = Account(speed=MIB)
    account.delay(0.0, 2 * MIB)
    for tenth in range(1, 19):
        assert account.delay(tenth / 10, MIB) == pytest.approx(2 - SLICE - tenth / 10)
    assert account.delay(2 - SLICE, MIB) <= 1e-9


def test_an_idle_time_is_worth_one_slice():
    account = Account(speed=round(MIB / SLICE))
    account.delay(0.0, 0)
    sent = 0
    while account.delay(1000.0, MIB) == 0.0:
        sent += 1
    assert sent == 2  # a slice is 1 MiB here, and one chunk may overrun


def test_a_new_limit_takes_over_what_is_owed():
    account = Account(speed=MIB)
    account.delay(0.0, 10 * MIB)
    account.change(0.0, 100 * MIB)
    assert account.delay(0.0, MIB) == pytest.approx(0.1, abs=0.002)
    account.change(0.0, 0)
    assert account.delay(0.0, MIB) == 0.0
    account.change(0.0, MIB)
    assert account.delay(0.0, MIB) == 0.0


@pytest.mark.parametrize("speed", [MOST - 1, MOST])
def test_a_limit_as_large_as_can_be_makes_nobody_wait(speed):
    account = Account(speed=MIB)
    account.delay(0.0, 10 * MIB)
    account.change(0.0, speed)
    assert [account.delay(0.0, MIB) or account.until(0.0, 0) for _ in range(1000)] == [0.0] * 1000


@pytest.mark.parametrize("speed", [(1 << 53) + 1, 10**17, MOST])
def test_a_copy_under_a_very_large_limit_goes_on_and_takes_little_cpu(speed):
    throttle, began = Throttle(speed), time.process_time()
    for _ in range(10_000):
        assert throttle.take(MIB)
        throttle.pace(0)
        assert throttle.part >= MIB
    assert time.process_time() - began < 1.0, "a ten-thousandth of a second a chunk"


def test_a_clock_that_goes_back_gives_nothing_away():
    account = Account(speed=MIB)
    account.delay(10.0, MIB)
    assert account.delay(5.0, MIB) == pytest.approx(1 - SLICE)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 4 * MIB)), max_size=60), st.integers(1, 64 * MIB))
def test_no_more_goes_than_the_speed_a_slice_and_one_chunk(asked, speed):
    account, now, sent, largest = Account(speed), 0.0, 0, 0
    for wait, n in asked:
        now += wait
        if account.delay(now, n) == 0.0:
            sent, largest = sent + n, max(largest, n)
    assert sent <= speed * (now + SLICE) + largest + 1


def test_a_piece_is_let_through_in_parts_as_it_is_paid_for():
    account = Account(speed=MIB)
    account.delay(0.0, 0)
    account.delay(0.0, MIB)
    assert account.until(0.0, MIB) == 0.0
    assert account.until(0.0, MIB // 2) == pytest.approx(0.5 - SLICE)
    assert account.until(0.5, MIB // 2) == 0.0
    account.change(0.5, 0)
    assert account.until(0.5, 0) == 0.0, "without a limit nothing waits"


@pytest.mark.parametrize(
    ("speed", "part"), [(0, 0), (1, 0), (1 << 18, 1 << 16), (8 * MIB, 3 << 16), (80 * MIB, 2 * MIB)]
)
def test_parts_are_what_a_limit_lets_through_in_a_moment(speed, part):
    assert Throttle(speed).part == part


def test_whoever_waits_for_a_piece_to_end_waits_for_no_limit():
    throttle = Throttle(speed=MIB)
    throttle.take(3600 * MIB)
    throttle.interrupt()
    began = time.monotonic()
    throttle.pace(0)
    assert time.monotonic() - began < 0.5


def waiting(throttle):
    """A thread that owes for an hour and asks for more; its answer comes in a list."""
    throttle.take(3600 * throttle.speed)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(throttle.take(1)))
    thread.start()
    return thread, answers


@pytest.mark.parametrize("speed", [0, 1 << 50], ids=["none", "higher"])
def test_raising_the_limit_wakes_a_sleeper_at_once(speed):
    throttle = Throttle(speed=MIB)
    thread, answers = waiting(throttle)
    began = time.monotonic()
    throttle.speed = speed
    thread.join(5)
    assert answers == [True]
    assert time.monotonic() - began < 0.5


def test_an_interrupted_sleeper_took_nothing_and_all_that_come_are_sent_back():
    throttle = Throttle(speed=MIB)
    thread, answers = waiting(throttle)
    throttle.interrupt()
    thread.join(5)
    assert answers == [False]
    assert throttle.take(1) is False
    throttle.proceed()
    throttle.speed = 0
    assert throttle.take(1) is True
