"""A grouped transaction of two good backups before a bad action: QEMU never answers it, ours does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
import stages
from iotest import Bench
from playbook import ask
from vocabulary import group, member

LIMIT = 1.0  # seconds
LAST = {
    "abort": (
        ask("abort"),
        "Transaction aborted using Abort action",
    ),
    "unknown node": (member(2), "Cannot find device='a2' nor node-name='a2'"),
}


@pytest.mark.skipif(bool(stages.missing()), reason=stages.missing())
def test_the_original_does_not_answer(tmp_path: Path) -> None:
    """If this fails, QEMU has healed, and docs/qmp-differences.md is to be corrected."""
    bad, _ = LAST["unknown node"]
    with stages.original(tmp_path) as stage:
        bench = Bench(stage, "images")
        for n in range(2):
            bench.image(f"a{n}")
            bench.image(f"b{n}")
        bench.patience(LIMIT)
        with pytest.raises(TimeoutError):
            bench.qmp("transaction", dict(group(member(0), member(1), bad).arguments))
        bench.hang_up()


@pytest.fixture
def fleet(our_stage: stages.Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(our_stage, tmp_path_factory.mktemp("hang").name)
    yield bench
    bench.close()


@pytest.mark.parametrize("last", LAST)
def test_a_group_that_fails_after_two_good_members_is_refused_within_a_second_and_leaves_nothing(
    fleet: Bench, last: str
) -> None:
    for n in range(2):
        fleet.image(f"a{n}", fill=True)
        fleet.image(f"b{n}")
    bad, text = LAST[last]
    before = {path.name: path.stat() for path in fleet.place.iterdir()}
    started = monotonic()
    refusal = fleet.refused("transaction", **group(member(0), member(1), bad).arguments)
    assert monotonic() - started < LIMIT
    assert refusal == text
    assert fleet.ok("query-jobs") == []
    assert {path.name: path.stat() for path in fleet.place.iterdir()} == before
    fleet.ok("transaction", **group(member(0), member(1)).arguments)  # ids, nodes and locks are free again
    fleet.until("j0", "null")
    assert fleet.same("a0", "b0")
