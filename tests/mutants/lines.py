"""What a line of the tables of mutants says.

A line takes one guard away: file, exact text, what replaces it, and the tests that have to fail: the narrowest ones, so
that a line costs seconds.  ``never``: what a condition asks for never is.  ``covered_by``: a second guard that does the
same work; the tests fail only where both are gone.  ``besides``: more guards that are gone at once, all of them covered
by that one.  ``survives``: why no test can tell.

The tables of each plane are in a folder of their own, and their files are beneath the folder of that plane's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Change:
    """A text that is there once in a file, and what replaces it."""

    file: str
    text: str
    instead: str

    def beneath(self, folder: str) -> Change:
        return replace(self, file=f"{folder}/{self.file}")


@dataclass(frozen=True)
class Mutant:
    file: str
    text: str
    instead: str
    tests: str
    covered_by: Change | None = None
    survives: str = ""
    besides: tuple[Change, ...] = ()  # made together with it
    covered_too: bool = False  # whether the second guard is gone as well

    def with_cover(self) -> Mutant:
        return replace(self, covered_too=True)

    def changes(self) -> Iterator[Change]:
        yield Change(self.file, self.text, self.instead)
        yield from self.besides
        if self.covered_too and self.covered_by:
            yield self.covered_by

    def beneath(self, folder: str) -> Mutant:
        return replace(
            self,
            file=f"{folder}/{self.file}",
            covered_by=self.covered_by and self.covered_by.beneath(folder),
            besides=tuple(change.beneath(folder) for change in self.besides),
        )


def beneath(folder: str, *tables: Iterable[Mutant]) -> tuple[Mutant, ...]:
    """The lines of these tables, with their files as they are named from the top of the project."""
    return tuple(line.beneath(folder) for table in tables for line in table)


def never(file: str, text: str, tests: str, survives: str = "") -> Mutant:
    """The condition with which a text begins is never met."""
    condition, rest = text.split("\n", 1)
    indent, word, _ = condition.partition("elif " if condition.lstrip().startswith("elif") else "if ")
    return Mutant(file, text, f"{indent}{word}False:\n{rest}", tests, survives=survives)


def unit(file: str, *names: str) -> str:
    """Tests of a file of tests of single parts, by what they promise."""
    return " ".join(f"tests/unit/test_{file}.py::test_{name}" for name in names)


def name(test: str) -> str:
    """A test of the names of hosts."""
    return f"tests/cluster/test_one_name.py::test_{test}"


def registry(file: str, *names: str) -> str:
    """Tests of a file of tests of the registry, on a real server."""
    return " ".join(f"tests/redis/test_{file}.py::test_{name}" for name in names)


def full(script: str) -> str:
    """The test of a script on a Redis that is full."""
    return registry("full", f"what_ends_something_goes_through_on_a_full_redis[{script}]")


def here(name: str) -> str:
    """A test of attempts in the process of the tests."""
    return f"tests/cluster/test_attempts_here.py::test_{name}"


HERE: Final = "tests/cluster/test_attempts_here.py::test_a_decision_that_the_host_cannot_note_is_not_carried_out"
RIGHTS: Final = "tests/redis/test_attacks.py tests/redis/test_rights.py"  # each user, on both servers
HUNT: Final = "--hunt"  # at each change, until something is found
TOGETHER: Final = "tests/unit/test_together.py"
CUT_AT: Final = "tests/power/test_power_cuts.py::test_a_power_cut_at_any_change_loses_nothing_that_was_answered"


def power(*stories: str) -> str:
    """Power cuts in these stories."""
    return " ".join([HUNT, *(f"{CUT_AT}[{story}]" for story in stories)])
