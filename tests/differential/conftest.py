"""Both servers for all stories; each leaves them without a job or a node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stages
from iotest import Bench


@pytest.fixture(scope="session")
def our_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stages.Stage]:
    with stages.ours(tmp_path_factory.mktemp("ours")) as stage:
        yield stage


@pytest.fixture(scope="session")
def their_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stages.Stage]:
    if why := stages.missing():
        pytest.skip(why)
    with stages.original(tmp_path_factory.mktemp("theirs")) as stage:
        yield stage


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
