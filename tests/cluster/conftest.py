"""One fleet of four hosts for all stories; each leaves it as it found it."""

from __future__ import annotations

from contextlib import closing

import pytest
from fleet import Fleet
from shared import share


@pytest.fixture(scope="module")
def four_hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return share(request, lambda: closing(Fleet(tmp_path_factory.mktemp("fleet"), ["a", "b", "c", "d"])))


@pytest.fixture
def fleet(four_hosts: Fleet) -> Fleet:
    """The fleet, whole: what the story before stopped or killed runs again."""
    four_hosts.mend()
    return four_hosts
