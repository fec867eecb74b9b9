"""What a test has stopped goes on behind it, however the test ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psutil
import pytest
from children import stop_process

Sleeper = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def sleeper() -> Iterator[Sleeper]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def stop(process: Sleeper) -> None:
    stop_process(process)
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        pass


@pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
def test_a_test_that_fails_leaves_a_process_stopped(sleeper: Sleeper) -> None:
    stop(sleeper)
    raise ZeroDivisionError


def test_and_the_next_one_finds_it_running(sleeper: Sleeper) -> None:
    assert psutil.Process(sleeper.pid).status() != psutil.STATUS_STOPPED
    stop(sleeper)


def test_also_behind_a_test_that_passed(sleeper: Sleeper) -> None:
    assert psutil.Process(sleeper.pid).status() != psutil.STATUS_STOPPED


def test_a_process_that_ended_while_it_was_stopped_is_let_be() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        stop(process)
        process.kill()
