"""Both servers for all stories; each leaves them without a job or a node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stages
from iotest import Bench
from shared import share


def is_told_here(item: pytest.Item) -> bool:
    return item.path.parent == Path(__file__).parent


@pytest.fixture(scope="module")
def our_stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> stages.Stage:
    return share(request, lambda: stages.ours(tmp_path_factory.mktemp("ours")), is_told_here)


@pytest.fixture(scope="module")
def their_stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> stages.Stage:
    if why := stages.missing():
        pytest.skip(why)
    return share(request, lambda: stages.original(tmp_path_factory.mktemp("theirs")), is_told_here)


@pytest.fixture(params=["their_stage", "our_stage"], ids=["original", "ours"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """QEMU's cases run on QEMU, too: one that fails there is not QEMU's case."""
    bench = Bench(request.getfixturevalue(request.param), tmp_path.name)
    yield bench
    bench.close()


@pytest.fixture
def fleet(our_stage: stages.Stage, tmp_path: Path) -> Iterator[Bench]:
    """Ours alone, for what only ours promises."""
    bench = Bench(our_stage, tmp_path.name)
    yield bench
    bench.close()
