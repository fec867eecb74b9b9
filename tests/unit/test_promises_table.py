"""docs/promises.md: every promise has its tests, and every file that the table names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", TEXT, re.M)


def paths_of(row: str) -> list[Path]:
    """The files and folders that a row names; a name alone is of the folder of the one before it."""
    found: list[Path] = []
    for name in re.findall(r"`((?:tests/)?[\w/]+(?:\.py|/)|tests/\w+)`", row):
        found.append(ROOT / name if name.startswith("tests/") else found[-1].parent / name)
    return found


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=lambda row: row.split("`")[1])
def test_every_file_of_a_row_is_there(row):
    assert paths_of(row)
    assert [path for path in paths_of(row) if not path.exists()] == []


def test_every_promise_has_a_row():
    promises = re.findall(r"^(\d)\. ", TEXT, re.M)
    assert {number for numbers, _ in ROWS for number in numbers.split(", ")} == set(promises) == set("123456789")


def test_the_control_names_a_file_that_is_not_there():
    assert not paths_of("`tests/unit/test_links.py`, `test_nothing.py`: nothing")[1].exists()
