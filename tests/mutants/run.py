"""Mutants: each takes one guard away, and the tests named beside it have to fail for that.

    python tests/mutants/run.py [WORD ...]      those whose line contains one of the words; all without any
    python tests/mutants/run.py --without WORD  those whose line does not contain the word
    python tests/mutants/run.py --storms [WORD ...]  guards of which a storm of faults tells that they are gone
    python tests/mutants/run.py --texts         whether each text is found once and changes something; no test is run

First the tests of all lines run once on the code as it is: a test that fails anyway tells nothing about a guard.
Exit code 1: such a test fails, a mutant survived without a written reason, a text was not found exactly once, or a
reason is out of date.
"""

from __future__ import annotations

import importlib
import itertools
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import pytest
from lines import HUNT, Change, Mutant
from storms import STORMS
from table import MUTANTS

TOP = Path(__file__).resolve().parents[2]
SIDE_BY_SIDE = 2
LONGEST = 400  # seconds of one test
LIMIT = 900.0  # seconds of all tests of a line
# What most tests import and no mutant changes: here once for all of them, which takes as long as a cheap test.
COMMON = ("blake3", "celery", "click", "kombu", "msgpack", "psutil", "pydantic", "redis", "ruamel.yaml")

T = TypeVar("T")


def main() -> int:
    if sys.argv[1:] == ["--texts"]:
        return check_texts()
    storms = sys.argv[1:2] == ["--storms"]
    table, words = (STORMS, sys.argv[2:]) if storms else (MUTANTS, sys.argv[1:])
    chosen = [mutant for mutant in table if is_chosen(repr(mutant), words)]
    began = time.monotonic()
    wrongs = [*each_in_a_copy(control, tests_of(chosen)), *each_in_a_copy(judge, chosen)]
    bad = sum(map(bool, wrongs))
    covered, survive = sum(bool(line.covered_by) for line in chosen), sum(bool(line.survives) for line in chosen)
    print(
        f"{len(chosen)} mutants, {covered} of them covered by another guard and {survive} with a reason to survive; "
        f"{bad} not as they should be; {time.monotonic() - began:.0f} s"
    )
    return 1 if bad or not chosen else 0


def check_texts() -> int:
    """Print each change whose text is not as ``changed_text`` expects it; the exit code."""
    wrong = []
    changes = {change for mutant in (*MUTANTS, *STORMS) for change in mutant.with_cover().changes()}
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
    whole = (top / change.file).read_text()
    if (found := whole.count(change.text)) != 1:
        raise LookupError(f"its text is there {found} times: once was expected")
    if change.text == change.instead:
        raise LookupError("what replaces its text is the same text")
    return whole.replace(change.text, change.instead)


def is_chosen(line: str, words: list[str]) -> bool:
    if words[:1] == ["--without"]:
        return not any(each in line for each in words[1:])
    return not words or any(each in line for each in words)


def tests_of(mutants: Iterable[Mutant]) -> list[str]:
    """The tests of these lines, each once: in one call where they are plain names, power cuts in their short version."""
    asked = list(dict.fromkeys(mutant.tests.replace(HUNT, "").strip() for mutant in mutants))
    plain = dict.fromkeys(word for tests in asked if is_plain(tests) for word in shlex.split(tests))
    return [tests for tests in (shlex.join(plain), *asked) if tests and (tests not in asked or not is_plain(tests))]


def is_plain(tests: str) -> bool:
    return not any(word.startswith("-") for word in shlex.split(tests))


def control(copy: Copy, tests: str) -> str:
    """Run tests on the code as it is; what is wrong with them."""
    output = copy.failure((), tests)
    if output:
        tell(f"BAD: these tests fail without a mutant: {tests}\n{output[-3000:]}")
    return output


def judge(copy: Copy, mutant: Mutant) -> str:
    """What is wrong about a mutant; "" where its tests fail, or where its survival is explained and still true."""
    began = time.monotonic()
    try:
        killed = bool(copy.failure(mutant.changes(), mutant.tests))
        if mutant.covered_by:
            both = bool(copy.failure(mutant.with_cover().changes(), mutant.tests))
            wrong = "" if not killed and both else f"alone it is {word(killed)}, with its cover {word(both)}"
        elif mutant.survives:
            wrong = "it is killed, and listed as one that survives" if killed else ""
        else:
            wrong = "" if killed else "it SURVIVED"
    except (LookupError, OSError) as odd:
        wrong = str(odd)
    text = f"{mutant.file}: {mutant.text.strip()[:70]!r}{': ' + wrong if wrong else ''}"
    tell(f"{'ok ' if not wrong else 'BAD'} {time.monotonic() - began:4.0f} s {text}")
    return wrong


def word(killed: bool) -> str:
    return "killed" if killed else "not found"


def tell(text: str) -> None:
    print(text)
    sys.stdout.flush()


# --- where it is judged ---------------------------------------------------------------------------------


def copy_project(place: Path) -> None:
    """Copy the files that git knows; links stay links, as some are to folders."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (TOP / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, place / name, follow_symlinks=False)


class Copy:
    """A copy of the project in a directory of its own, which one mutant at a time changes."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._moments = itertools.count(int(time.time()) + 3600)

    def failure(self, changes: Iterable[Change], tests: str) -> str:
        """What the tests say when these changes are made; "" where all pass.

        Raises:
            LookupError: a text is not there exactly once, pytest was called wrongly, or it took too long.
        """
        words = ["-q", "-x", "-p", "no:cacheprovider", f"--timeout={LONGEST}", *shlex.split(tests)]
        with self._changed(changes), tempfile.TemporaryFile("w+") as said:
            code = finish(fork(partial(self._run, words, said.fileno())), LIMIT)
            said.seek(0)
            output = said.read()
        if code is None or "Failed: Timeout" in output:  # it may be the machine that was slow
            raise LookupError(f"its tests were not over in time: {output[-1000:]}")
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # no such test, or one that is not imported
            raise LookupError(f"pytest ended with {code}: {output[-1000:]}")
        return output if code else ""

    def _run(self, words: list[str], said: int) -> int:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(self._place)
        sys.path[:1] = [f"{self._place}/coordinator", f"{self._place}/workers"]  # in the place of this directory
        os.environ["PYTHONPATH"] = ":".join(sys.path[:2])
        return pytest.main(words)

    @contextmanager
    def _changed(self, changes: Iterable[Change]) -> Iterator[None]:
        before: dict[Path, str] = {}
        try:
            for change in changes:
                path = self._place / change.file
                changed = changed_text(self._place, change)
                before.setdefault(path, path.read_text())
                self._write(path, changed)
            yield
        finally:
            for path, whole in before.items():
                self._write(path, whole)

    def _write(self, path: Path, text: str) -> None:
        """Python knows a module that it has compiled by size and time, in whole seconds: each version has its own."""
        path.write_text(text)
        moment = next(self._moments)
        os.utime(path, (moment, moment))


def fork(act: Callable[[], int]) -> int:
    """A process that does this and ends with its exit code; its id."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        code = act()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(pid: int, seconds: float) -> int | None:
    """Wait for a process to end, and kill what it has started and left; its exit code, None: it took too long."""
    about = os.pidfd_open(pid)
    in_time, _, _ = select.select([about], [], [], seconds)
    os.close(about)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if in_time else None


class Lane:
    """A process with a copy of its own.  It has imported what all tests do, so that a call of pytest begins at once."""

    copy: Copy

    @classmethod
    def settle(cls, places: Any) -> None:
        cls.copy = Copy(Path(places.get()))

    @classmethod
    def act(cls, act: Callable[[Copy, T], str], what: T) -> str:
        return act(cls.copy, what)


def each_in_a_copy(act: Callable[[Copy, T], str], everything: list[T]) -> list[str]:
    """Do this with each of them, some at a time."""
    for name in COMMON:
        importlib.import_module(name)
    context = get_context("fork")
    with tempfile.TemporaryDirectory(prefix="blockjobs-mutants-") as temporary:
        places = context.SimpleQueue()
        for number in range(SIDE_BY_SIDE):
            copy_project(Path(place := f"{temporary}/{number}"))
            places.put(place)
        with context.Pool(SIDE_BY_SIDE, Lane.settle, (places,)) as lanes:
            return lanes.map(partial(Lane.act, act), everything, chunksize=1)


if __name__ == "__main__":
    sys.exit(main())
