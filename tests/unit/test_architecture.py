"""docs/architecture.md names files that are there, scripts that are there, and the figures of the code."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from blockjobs.daemons.finalizer import DEADLINES
from blockjobs.model.barriers import Step
from blockjobs.model.states import MOVES, Status
from blockjobs.registry.scripts import NAMES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PLANES = ("coordinator/blockjobs", "workers/blockworker")
LIMITS = re.findall(r"^\| [^|]+ \| (\d+) \| `(?:coordinator|workers)/([\w/]+)\.py: ([A-Z_]+)` \|", TEXT, re.MULTILINE)
LIFE = TEXT[TEXT.index("## The life of a run") : TEXT.index("## The states of a job")]


@pytest.mark.parametrize(("seconds", "module", "name"), LIMITS)
def test_a_time_limit_is_the_one_of_the_code(seconds, module, name):
    assert getattr(import_module(module.replace("/", ".")), name) == float(seconds)


def test_the_tables_were_found():
    assert len(LIMITS) > 10
    assert LIFE.count("\n| ") > 12


def test_the_deadlines_of_the_barriers_are_those_of_the_finalizer():
    told = " and ".join(
        ", ".join(f"{DEADLINES[step]:g}" for step in (Step.OPEN, Step.CUT, Step.PREPARE)).rsplit(", ", 1)
    )
    assert f"The deadlines of OPEN, CUT and PREPARE are {told} s" in TEXT


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)", TEXT))))
def test_a_file_that_is_named_is_there(path):
    places = [ROOT / path, *(ROOT / plane / path for plane in PLANES)]
    assert any(place.is_file() for place in places)


def test_a_script_that_is_named_is_there():
    rows = [line.split("|") for line in LIFE.splitlines() if re.match(r"\| \d", line)]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[4])}
    assert len(named) > 10
    assert named <= set(NAMES)


def test_the_states_are_drawn_with_every_edge_of_the_table():
    drawn = set()
    picture = TEXT[TEXT.index("## The states of a job") :].split("```")[1]
    for line in picture.strip().splitlines():
        parts = re.split(r"\s+(<?->)\s+", line.split("       a mirror")[0].split("      the same")[0].strip())
        for left, arrow, right in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
            for one in left.split(", "):
                drawn |= {(one, right.strip())} | ({(right.strip(), one)} if arrow == "<->" else set())
    edges = {(str(start), str(end)) for start, ends in MOVES.items() for end in ends if start is not end}
    # A job that was never begun may be dismissed at once, and one that ends unpublished is removed.
    assert drawn == edges - {(str(Status.CREATED), str(Status.NULL))}
