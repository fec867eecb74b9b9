"""What several modules of tests use: made for the first of them, and closed behind the last.

A fixture of the session would be closed at the very end.  A fleet that nobody talks to any more would take a tenth of a
processor from all tests that come behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from xdist.scheduler import LoadFileScheduling

Thing = TypeVar("Thing")
Wanted = Callable[[pytest.Item], bool]

# Files that go to one process, one behind the other, where tests run side by side: each group shares a fleet, or two
# servers to compare, which cost up to fifteen seconds of a processor until they are up.
GROUPS = {
    "mirrors": ("cluster", "mirror hosts drain salvage_runs abandoned outside lost_memory cost_of_rest"),
    "refusals": ("cluster", "bad_input groups doctor_cluster deaths crowded"),
    "nights": ("cluster", "policies second_night restore verify_runs move publish_order"),
    "QEMU's cases": ("differential", "iotest_041 iotest_041_formats iotest_055"),
    "stories": ("differential", "differential format_nodes hang only_here qmp_shell raw_bytes"),
    "QMP": ("qmp", "named_volumes qmp_arguments qmp_blockjob qmp_clients qmp_resize qmp_transactions qmp_verbs"),
}

# What takes longest begins first, beside all others: minutes, one test behind the other, mostly of waiting.
LONGEST = (
    "QEMU's cases", "stories", "tests/power/test_power_cuts.py", "tests/cluster/test_in_place.py",
    "tests/cluster/test_cuts.py", "nights", "QMP", "mirrors",
)  # fmt: skip


@dataclass
class Shared:
    thing: Any
    wanted: Wanted
    stack: ExitStack


SHARED = pytest.StashKey[dict[str, Shared]]()


def share(
    request: pytest.FixtureRequest, make: Callable[[], AbstractContextManager[Thing]], wanted: Wanted | None = None
) -> Thing:
    """The value of a fixture of a module: the one that an earlier module left, or one that is made now.

    ``wanted``: whether a test uses it; by default, whether the fixture is among those that the test asks for.
    """
    name = str(request.fixturename)
    shared = request.config.stash.setdefault(SHARED, {})
    if name not in shared:
        stack = ExitStack()
        thing = stack.enter_context(make())
        shared[name] = Shared(thing, wanted or (lambda item: name in getattr(item, "fixturenames", ())), stack)
    kept: Thing = shared[name].thing
    return kept


def close_what_nobody_wants(config: pytest.Config, item: pytest.Item | None) -> None:
    """``item``: the test that comes next, None: no one."""
    shared = config.stash.get(SHARED, {})
    for name in [name for name, each in shared.items() if item is None or not each.wanted(item)]:
        shared.pop(name).stack.close()


def suite_of(file: str) -> str:
    """The directory of a file or a test below ``tests``: that of ``tests/cluster/test_mirror.py`` is "cluster"."""
    return file.removeprefix("tests/").partition("/")[0]


def group_of(file: str) -> str:
    """The group of a file of tests, or its own name: that of ``tests/cluster/test_mirror.py`` is "mirrors"."""
    suite, _, name = file.removeprefix("tests/").partition("/")
    word = name.partition("/")[0].removeprefix("test_").removesuffix(".py")
    return next((group for group, (place, words) in GROUPS.items() if place == suite and word in words.split()), file)


def rank_of(file: str) -> int:
    """The place of the group of a file among those that take longest; behind them, all others are equal."""
    group = group_of(file)
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


class SideBySide(LoadFileScheduling):  # type: ignore[misc]
    """Tests of one file, or of one group of files, run in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(super()._split_scope(nodeid))
