"""One fleet of four hosts for all stories; each leaves it as it found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet import Fleet


@pytest.fixture(scope="session")
def session_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), ["a", "b", "c", "d"])
    yield fleet
    fleet.close()


@pytest.fixture
def fleet(session_fleet: Fleet) -> Fleet:
    """The fleet, whole: what the story before stopped or killed runs again."""
    session_fleet.mend()
    return session_fleet
