"""The judgement of the endurance test finds a leak in noise, and finds none in noise alone."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import cycle, islice

import psutil
import pytest
from fleet import children
from growth import MIB, Series, grows, growth, held

SECONDS = 240


def series(*values: float) -> Series:
    return [(float(second), value) for second, value in enumerate(values)]


def noise(seed: int) -> list[float]:
    """Copies that come and go: up to 8 MiB more for some of the time."""
    drawn = random.Random(seed)  # noqa: S311 - the same noise each time
    return [50.0 + drawn.choice([0, 0, 0, 1, 2, 8]) + drawn.random() for _ in range(SECONDS)]


FLAT = {
    "constant": [7.0] * SECONDS,
    "noisy": noise(1),
    "other noise": noise(2),
    "sawtooth": list(islice(cycle(range(0, 12, 2)), SECONDS)),
    "slow sawtooth": [second % 30 / 3 for second in range(SECONDS)],
    "one step and back": [10.0] * 100 + [99.0] * 40 + [10.0] * 100,
    "falling": [90.0 - second / 10 for second in range(SECONDS)],
    "a last sample that is high": [10.0] * (SECONDS - 1) + [500.0],
}
LEAKING = {
    "a little each second": [50.0 + second / 60 for second in range(SECONDS)],
    "a little in noise": [value + second / 60 for second, value in enumerate(noise(3))],
    "in steps": [50.0 + second // 60 for second in range(SECONDS)],
    "a sawtooth that climbs": [second % 30 / 10 + second / 40 for second in range(SECONDS)],
}


@pytest.mark.parametrize("values", FLAT.values(), ids=FLAT)
def test_what_does_not_grow_is_found_flat(values: list[float]) -> None:
    assert not grows(series(*values), 2)


@pytest.mark.parametrize("values", LEAKING.values(), ids=LEAKING)
def test_what_grows_by_more_than_it_may_is_found(values: list[float]) -> None:
    assert grows(series(*values), 2)


@pytest.mark.parametrize("values", LEAKING.values(), ids=LEAKING)
def test_growth_within_what_is_allowed_is_none(values: list[float]) -> None:
    assert not grows(series(*values), 8)


def test_the_line_is_that_of_the_samples() -> None:
    found = growth(series(*(10.0 + second / 36 for second in range(SECONDS))))
    assert found.per_hour == pytest.approx(100)
    assert (found.start, found.end) == pytest.approx((10 + 39.5 / 36, 10 + 199.5 / 36))


LEAK = """
import os, sys, threading
kept = []
for line in sys.stdin:
    if line == "leak\\n":
        kept.append((os.open(os.devnull, os.O_RDONLY), bytearray(os.urandom(1 << 18))))
    print(len(kept), flush=True)
"""


@pytest.mark.parametrize("word", ["leak", "rest"])
def test_a_real_process_that_leaks_is_found_and_one_that_rests_is_not(word: str) -> None:
    with subprocess.Popen([sys.executable, "-c", LEAK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdin
        assert p.stdout
        seen = []
        for _ in range(40):
            p.stdin.write(f"{word}\n")
            p.stdin.flush()
            assert p.stdout.readline()
            seen.append(held([psutil.Process(p.pid)]))
        p.stdin.close()
    assert grows(series(*(each.uss / MIB for each in seen)), 2) is (word == "leak")
    assert grows(series(*(each.fds for each in seen)), 3) is (word == "leak")
    assert not grows(series(*(each.threads for each in seen)), 0)


def test_a_process_that_is_gone_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        one = psutil.Process(process.pid)
    assert held([one]).processes == 0
    assert children(one.pid) == []
