"""Mutants: each takes one guard of the data plane away, and the tests named beside it have to fail for that.

    python tests/mutants/run.py [WORD ...]      those whose line contains one of the words; all without any
    python tests/mutants/run.py --without WORD  those whose line does not contain the word
    python tests/mutants/run.py --texts         whether each text is found once and changes something; no test is run

Exit code 1: a mutant survived without a written reason, a text was not found exactly once, or a reason is out of date.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from table import MUTANTS, Change, Mutant

TOP = Path(__file__).resolve().parents[2]
PLANE = Path("workers/blockworker")
SIDE_BY_SIDE = 2
LIMIT = 900.0  # seconds; a mutant that makes its tests hang is found by that


def main() -> int:
    if sys.argv[1:] == ["--texts"]:
        return check_texts()
    chosen = [mutant for mutant in MUTANTS if is_chosen(repr(mutant), sys.argv[1:])]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as lanes:
        verdicts = list(lanes.map(judge, chosen))
    bad = [verdict for verdict in verdicts if verdict]
    print(f"{len(chosen)} mutants, {len(chosen) - len(bad)} as they should be, {len(bad)} not")
    return 1 if bad or not chosen else 0


def check_texts() -> int:
    """Print each change whose text is not as ``changed_text`` expects it; the exit code."""
    wrong = []
    changes = {change for mutant in MUTANTS for change in mutant.with_cover().changes()}
    for change in sorted(changes, key=lambda it: (it.file, it.text)):
        try:
            changed_text(TOP, change)
        except (LookupError, OSError) as odd:
            wrong.append(f"BAD {change.file}: {change.text.strip()[:70]!r}: {odd}")
    print(*wrong, f"{len(changes)} texts, {len(wrong)} of them not as expected", sep="\n")
    return 1 if wrong or not changes else 0


def changed_text(top: Path, change: Change) -> str:
    """The file of a change, below this copy of the project, with the change made.

    Raises:
        LookupError: its text is not found exactly once, or what replaces it is the same.
        OSError: there is no such file.
    """
    whole = (top / PLANE / change.file).read_text()
    if (found := whole.count(change.text)) != 1:
        raise LookupError(f"its text is there {found} times: once was expected")
    if change.text == change.instead:
        raise LookupError("what replaces its text is the same text")
    return whole.replace(change.text, change.instead)


def is_chosen(line: str, words: list[str]) -> bool:
    if words[:1] == ["--without"]:
        return not any(each in line for each in words[1:])
    return not words or any(each in line for each in words)


def judge(mutant: Mutant) -> str:
    """What is wrong about a mutant; "" where its tests fail, or where its survival is explained and still true."""
    try:
        killed = fails_with(mutant, mutant.tests)
        if mutant.covered_by:
            alone, both = killed, fails_with(mutant.with_cover(), mutant.tests)
            wrong = "" if not alone and both else f"alone it is {word(alone)}, with its cover {word(both)}"
        elif mutant.survives:
            wrong = "it is killed, and listed as one that survives" if killed else ""
        else:
            wrong = "" if killed else "it SURVIVED"
    except (LookupError, OSError) as odd:
        wrong = str(odd)
    print(f"{'ok ' if not wrong else 'BAD'} {mutant.file}: {mutant.text.strip()[:70]!r}{': ' + wrong if wrong else ''}")
    sys.stdout.flush()
    return wrong


def word(killed: bool) -> str:
    return "killed" if killed else "not found"


def fails_with(mutant: Mutant, tests: str) -> bool:
    """Whether the tests fail once every change of the mutant is made."""
    with copied() as place:
        for change in mutant.changes():
            (place / PLANE / change.file).write_text(changed_text(place, change))
        env = {**os.environ, "PYTHONPATH": f"{place}/coordinator:{place}/workers", "PYTHONDONTWRITEBYTECODE": "1"}
        argv = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "--timeout=120",
            *shlex.split(tests),
        ]
        try:
            done = subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return True
        if done.returncode not in (0, 1):  # no test was found, or pytest was called wrongly
            raise LookupError(f"pytest ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}")
        return done.returncode == 1


@contextmanager
def copied() -> Iterator[Path]:
    """The files of the project that git knows, in a directory of their own."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="blockjobs-mutant-") as temporary:
        place = Path(temporary)
        for name in filter(None, names.split("\0")):
            if (TOP / name).exists():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TOP / name, place / name)
        yield place


if __name__ == "__main__":
    sys.exit(main())
