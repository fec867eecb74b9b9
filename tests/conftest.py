"""What every suite shares: an environment that is nobody's, and hypothesis without a stopwatch."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

for name in [name for name in os.environ if name.startswith("BLOCKJOBS_")]:
    del os.environ[name]

# The machine may be busy: what counts is what is found, not how fast.
settings.register_profile("blockjobs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("blockjobs")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="campaigns at full length; without it, their short versions")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest begins first, beside all others; at full length more than an hour is no hang."""
    items.sort(key=lambda item: item.get_closest_marker("endurance") is None)
    if config.getoption("--long"):
        for item in items:
            item.add_marker(pytest.mark.timeout(2 * 3600), append=False)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether a campaign is to run at full length."""
    return bool(request.config.getoption("--long"))
