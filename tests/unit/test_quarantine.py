"""What fails is put aside, named, and tried again after growing pauses; what is nobody's fault ends the turn."""

from __future__ import annotations

import pytest
import redis

from blockjobs.process.quarantine import LONGEST, LONGEST_OF_A_PART, Quarantine
from blockjobs.registry.connection import is_absence

# To whoever asks: to writes, and to all who wait while a server becomes a replica.
CLOSED = ("OOM", "READONLY", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "UNBLOCKED")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def failing(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize("error", [KeyError("spec"), redis.ResponseError("WRONGTYPE ..."), redis.DataError("None")])
def test_what_fails_rests_is_named_and_holds_up_nothing_else(clock, error):
    aside = Quarantine(clock)
    assert aside.handle("run a", failing(error)) is None
    assert aside.handle("run a", lambda: pytest.fail("it was to rest")) is None
    assert aside.handle("run b", lambda: "done") == "done"
    assert list(aside.told()) == ["run a"]
    assert type(error).__name__ in aside.told()["run a"]


def test_its_pauses_grow_to_a_limit_and_end_when_it_succeeds(clock):
    aside, pauses = Quarantine(clock), []
    for _ in range(14):
        aside.handle("run a", failing(ValueError("no")))
        began = clock.now
        while aside.rests("run a"):
            clock.now += 0.5
        pauses.append(clock.now - began)
        assert list(aside.over("run ")) == ["run a"]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == LONGEST
    assert aside.told() == {"run a": "ValueError: no (14 times)"}
    assert aside.handle("run a", lambda: 1) == 1
    assert aside.told() == {}


def test_a_part_of_a_daemons_work_is_never_left_alone_for_long(clock):
    aside = Quarantine(clock)
    for _ in range(14):
        aside.part("the clock", failing(ValueError("no")))
        clock.now += LONGEST_OF_A_PART
        assert not aside.rests("the clock")


def test_what_nobody_tries_any_more_is_forgotten(clock):
    aside = Quarantine(clock)
    aside.handle("run a", failing(ValueError("no")))
    clock.now += LONGEST
    assert aside.told() == {"run a": "ValueError: no"}
    clock.now += 2.0
    assert aside.told() == {}


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("refused"),
        redis.TimeoutError("5 s"),
        redis.exceptions.BusyLoadingError("LOADING"),
        redis.exceptions.NoScriptError("No matching script."),
        redis.exceptions.OutOfMemoryError("command not allowed"),
        redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
        *(redis.ResponseError(f"{word} ...") for word in CLOSED),
        redis.ResponseError("Command # 2 (HSET a b c) of pipeline caused error: MISCONF Errors writing"),
    ],
)
def test_that_redis_is_away_is_the_fault_of_no_item(clock, error):
    aside = Quarantine(clock)
    assert is_absence(error)
    with pytest.raises(type(error)):
        aside.handle("run a", failing(error))
    assert aside.told() == {}
    assert aside.handle("run a", lambda: 1) == 1
