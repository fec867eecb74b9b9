"""What every suite shares: an environment that is nobody's, and hypothesis without a stopwatch."""

from __future__ import annotations

import gc
import itertools
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from children import continue_stopped
from hypothesis import HealthCheck, settings
from shared import SideBySide, close_what_nobody_wants, rank_of, suite_of

for name in [name for name in os.environ if name.startswith("BLOCKJOBS_")]:
    del os.environ[name]

# The machine may be busy: what counts is what is found, not how fast.
settings.register_profile("blockjobs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("blockjobs")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="campaigns at full length; without it, their short versions")
    parser.addoption("--hunt", action="store_true", help="power cuts all over a story, until one of them harms")
    parser.addoption("--storms", type=int, default=3, help="how many storms of faults a site goes through")
    parser.addoption("--faults", default="", metavar="A,B", help="only these faults in a storm")
    parser.addoption("--no-skips", action="store_true", help="fail where a test was skipped for what is not there")
    parser.addoption("--seconds-to", metavar="FILE", help="append a line 'FILE SECONDS' for each file of tests")


# What may be skipped all the same, as no package brings it: processors that are taken away, and parts of a kernel.
EXCUSED = ("a hypervisor took too much", "this kernel has no")


def excused(why: str) -> bool:
    return any(excuse in why for excuse in EXCUSED)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays to the end: nobody looks for garbage in it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With ``--no-skips``: a suite that was skipped has shown nothing, and counts as failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--no-skips") or reporter is None or hasattr(session.config, "workerinput"):
        return
    skipped = [report for report in reporter.stats.get("skipped", []) if not excused(str(report.longrepr))]
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} skipped tests count as failed: {skipped[0].nodeid}, ...", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seconds of each suite: the sum over its tests, which may have run side by side."""
    if hasattr(config, "workerinput"):  # one of several processes of tests, which sends its reports to the first one
        return
    files: Counter[str] = Counter()
    suites: Counter[str] = Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            file = report.nodeid.partition("::")[0]
            files[file] += report.duration
            suites[suite_of(file)] += report.duration
    if files:
        said = ", ".join(f"{suite} {spent:.0f}" for suite, spent in suites.most_common())
        terminalreporter.write_line(f"seconds of each suite, as if one test ran at a time: {said}")
    if path := config.getoption("--seconds-to"):
        with open(path, "a") as seconds:
            seconds.writelines(f"{file} {spent:.1f}\n" for file, spent in files.items())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    continue_stopped()
    try:
        return (yield)
    finally:
        close_what_nobody_wants(item.config, nextitem)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Also where the tests were broken off."""
    close_what_nobody_wants(config, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> SideBySide | None:
    return SideBySide(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest begins first, beside all others; at full length more than an hour is no hang."""
    items.sort(key=lambda item: "four_hosts" not in getattr(item, "fixturenames", ()))  # a fleet comes up only once
    items.sort(key=lambda item: rank_of(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.get_closest_marker("endurance") is None)
    if config.getoption("--long"):
        for item in items:
            item.add_marker(pytest.mark.timeout(2 * 3600), append=False)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether a campaign is to run at full length."""
    return bool(request.config.getoption("--long"))
