"""A worker whose messages wait sends one to itself, and ends where nobody takes that one: in no other case."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import redis

from blockworker.watch import pulse
from blockworker.watch.pulse import LOOK, PATIENCE, LastTaken, Pulse


@dataclass
class Worker:
    """Looks are ``LOOK`` apart by a clock that goes when a test says so."""

    now: float = 100.0
    waits: bool = True
    free: bool = True
    away: bool = False
    sent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.taken = LastTaken()
        self.pulse = Pulse(self.taken, self._wait, lambda: self.sent.append(self.now))
        self.pulse.free = lambda: self.free

    def _wait(self) -> bool:
        if self.away:
            raise redis.ConnectionError
        return self.waits

    def look(self, times: int = 1) -> str:
        """So many looks; why the worker ends, if it does."""
        for _ in range(times):
            self.now += LOOK
            if why := self.pulse.look():
                return why
        return ""


@pytest.fixture
def worker(monkeypatch):
    worker = Worker()
    monkeypatch.setattr(pulse, "seconds_since_boot", lambda: worker.now)
    worker.taken.note()
    return worker


LONG = round(PATIENCE / LOOK) + 5  # looks


def test_a_worker_that_takes_no_message_while_some_wait_ends_and_says_for_how_long(worker):
    assert worker.look(LONG) == "no message was taken for 50 s, although some wait and this worker beats"
    assert worker.sent == [120.0, 130.0, 140.0, 150.0], "messages to itself, of which one may be lost"


def test_it_does_not_end_before_its_own_message_had_its_time(worker):
    assert worker.look(2) == ""
    assert len(worker.sent) == 1
    worker.now += PATIENCE - LOOK
    assert worker.look() == ""
    assert worker.look() != ""


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_worker_of_whose_own_messages_some_are_lost_goes_on(worker, lost):
    while len(worker.sent) <= lost:
        assert worker.look() == ""
    worker.taken.note()
    assert worker.look(4) == ""


def taken_again(worker):
    worker.taken.note()


def none_waits(worker):
    worker.waits = False


def all_slots_are_taken(worker):
    worker.free = False


def redis_is_away(worker):
    worker.away = True


@pytest.mark.parametrize("happens", [none_waits, all_slots_are_taken, redis_is_away])
def test_a_worker_that_has_nothing_to_take_or_cannot_goes_on_for_ever(worker, happens):
    happens(worker)
    assert worker.look(100) == ""
    assert worker.sent == []


@pytest.mark.parametrize("happens", [taken_again, all_slots_are_taken])
@pytest.mark.parametrize("looks", [1, 2, 3])
def test_whatever_happens_before_the_end_begins_the_count_anew(worker, happens, looks):
    assert worker.look(looks) == ""
    happens(worker)
    assert worker.look() == ""
    worker.free = True
    assert worker.look(LONG - 4) == ""


def test_a_worker_that_takes_one_message_after_the_other_sends_none_to_itself(worker):
    for _ in range(100):
        worker.taken.note()
        assert worker.look() == ""
    assert worker.sent == []


def test_a_message_that_was_lost_costs_one_message_now_and_then_and_no_end(worker):
    """Its own message is taken, the lost one still counts as waiting."""
    for _ in range(100):
        assert worker.look() == ""
        if worker.sent and worker.sent[-1] == worker.now:
            worker.taken.note()
    assert len(worker.sent) == pytest.approx(100 / 3, abs=20)


def test_an_absence_of_redis_is_no_reason_to_end_when_it_is_back(worker):
    worker.look(3)
    worker.away = True
    worker.now += 10 * PATIENCE
    assert worker.look(2) == ""
    worker.away = False
    assert worker.look(2) == ""
