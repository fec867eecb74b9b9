"""Our fleet of one host for all stories; each leaves it without a job or a node."""

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


@pytest.fixture(params=["original", "ours"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """QEMU's cases run on QEMU, too: one that fails there is not QEMU's case."""
    if request.param == "original":
        if why := stages.missing():
            pytest.skip(why)
        with stages.original(tmp_path) as stage:
            yield from _bench(stage, "images")
    else:
        yield from _bench(request.getfixturevalue("our_stage"), tmp_path.name)


def _bench(stage: stages.Stage, folder: str) -> Iterator[Bench]:
    bench = Bench(stage, folder)
    yield bench
    bench.close()
