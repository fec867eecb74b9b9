"""The tables of mutants are of the code as it is: a text that has moved is noticed without a run of the mutants."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MUTANTS = Path(__file__).parents[1] / "mutants"


def texts(place):
    """What the check of all texts says, with the table beside it."""
    argv = [sys.executable, str(place / "tests/mutants/run.py"), "--texts"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_each_text_of_the_table_is_found_once():
    done = texts(MUTANTS.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr


WRONG = {  # what a file holds, what its text ``sync()`` becomes, and why that cannot be done
    "lost.py": ("open()\n", "pass", "0 times"),
    "twice.py": ("sync()\nsync()\n", "pass", "2 times"),
    "same.py": ("sync()\n", "sync()", "the same text"),
    "gone.py": (None, "pass", "No such file"),
}


def test_a_text_that_is_not_found_once_is_named(tmp_path):
    for name in ("tests/mutants", "workers/blockworker"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("run.py", "lines.py"):
        (tmp_path / "tests/mutants" / name).write_bytes((MUTANTS / name).read_bytes())
    (tmp_path / "tests/mutants/storms.py").write_text("STORMS = ()\n")
    lines = [f"Mutant({name!r}, 'sync()', {instead!r}, 'tests/unit')" for name, (_, instead, _) in WRONG.items()]
    table = f"MUTANTS = beneath('workers/blockworker', ({', '.join(lines)}))"
    (tmp_path / "tests/mutants/table.py").write_text(f"from lines import Mutant, beneath\n{table}\n")
    (tmp_path / "tests/mutants/storms.py").write_text("STORMS = ()\n")
    for name, (content, _, _) in WRONG.items():
        if content is not None:
            (tmp_path / "workers/blockworker" / name).write_text(content)
    done = texts(tmp_path)
    assert done.returncode == 1
    said = {
        line.split()[1].rstrip(":").removeprefix("workers/blockworker/"): line
        for line in done.stdout.splitlines()
        if line.startswith("BAD")
    }
    assert sorted(said) == sorted(WRONG)
    for name, (_, _, why) in WRONG.items():
        assert why in said[name]
