"""docs/qmp-cases.md: every case of QEMU's has its tests, which exist, or the reason why it has none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"(?ms)^## (\d+):(.*?)(?=^## |\Z)")
ROW = re.compile(r"(?m)^\| ([^|]+) \| (\w+) \| (.+) \|$")
ROWS = [
    (f"{number}/{case}", state, what)
    for number, text in SECTION.findall((ROOT / "docs" / "qmp-cases.md").read_text())
    for case, state, what in ROW.findall(text)
]
NAME = re.compile(r"`([^`\[]+)(?:\[([^`]+)\])?`")  # with some of its parameters


@pytest.fixture(scope="module")
def collected():
    """Every test of the files that the table names, as pytest knows it: (name, parameters)."""
    files = sorted({name.split("::")[0] for _, _, what in ROWS for name, _ in NAME.findall(what)})
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", *(f"tests/differential/{file}" for file in files)]
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return re.findall(r"(?m)^tests/differential/([^\s\[]+)(?:\[(\S+)\])?$", said)


@pytest.mark.parametrize(("case", "state", "what"), ROWS, ids=[case for case, _, _ in ROWS])
def test_a_case_has_its_tests_or_a_reason(collected, case, state, what):
    assert state in ("played", "never")
    assert (state == "played") is bool(NAME.findall(what))
    for name, some in NAME.findall(what):
        tests = [f"-{parameters}-" for known, parameters in collected if f"{known}::".startswith(f"{name}::")]
        assert any(all(f"-{each}-" in test for each in some.split(", ") if each) for test in tests), name


def test_no_case_is_told_twice():
    assert len({case for case, _, _ in ROWS}) == len(ROWS) > 100
