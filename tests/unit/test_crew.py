"""What is done for many at once is given up for those whose file system hangs, and done for all others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockworker.system.crew import WIDTH, Crew, left_behind

DEADLINE = 20.0  # seconds; long, for machines that are busy


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """A path that hangs whoever opens it for writing, until the test is over."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    reader, deadline = os.open(path, os.O_RDONLY | os.O_NONBLOCK), time.monotonic() + DEADLINE
    while left_behind():
        assert time.monotonic() < deadline
    os.close(reader)


def touch(path: str) -> str:
    with open(path, "w", encoding="ascii"):
        return path


def soon() -> float:
    return time.monotonic() + 0.3


def test_everybody_of_another_group_is_served_while_one_hangs_and_the_path_is_named(fifo: Path):
    stuck = {f"stuck{number}": str(fifo) for number in range(2 * WIDTH)}
    fine = {f"fine{number}": "/dev/null" for number in range(2 * WIDTH)}
    crew = Crew(touch, stuck | fine, {key: key.rstrip("0123456789") for key in stuck | fine})
    assert crew.wait(fine, time.monotonic() + DEADLINE).keys() == fine.keys()
    assert crew.wait(stuck, soon()) == {}
    given_up = crew.give_up()
    assert given_up.keys() == stuck.keys()
    assert sorted(given_up.values()) == [""] * WIDTH + [str(fifo)] * WIDTH, "those that were never begun have no path"
    assert left_behind()


def test_in_one_group_those_behind_would_wait(fifo: Path):
    """The control: what groups are for."""
    values = {f"stuck{number}": str(fifo) for number in range(WIDTH)} | {"fine": "/dev/null"}
    crew = Crew(touch, values, dict.fromkeys(values, "one"))
    assert crew.wait(["fine"], soon()) == {}
    assert crew.give_up().keys() == values.keys()


def test_what_was_given_up_before_it_was_begun_is_never_begun(fifo: Path, tmp_path: Path):
    made = tmp_path / "made"
    values = {f"stuck{number}": str(fifo) for number in range(WIDTH)} | {"late": str(made)}
    crew = Crew(touch, values, dict.fromkeys(values, "one"))
    crew.wait(["late"], soon())
    crew.give_up()
    reader, deadline = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), time.monotonic() + DEADLINE
    while left_behind():
        assert time.monotonic() < deadline
    os.close(reader)
    assert not made.exists()


def test_what_goes_wrong_is_told_to_whoever_waits():
    def fail(value: int) -> int:
        raise ValueError(value)

    crew = Crew(fail, {"a": 1}, {"a": ""})
    with pytest.raises(ValueError, match="1"):
        crew.wait(["a"], time.monotonic() + DEADLINE)


def test_nobody_is_left_behind_by_work_that_came_to_its_end():
    crew = Crew(lambda value: value + 1, {n: n for n in range(100)}, {n: n % 3 for n in range(100)})
    assert crew.wait(crew.keys, time.monotonic() + DEADLINE) == {n: n + 1 for n in range(100)}
    assert crew.give_up() == {}
    assert not left_behind()
