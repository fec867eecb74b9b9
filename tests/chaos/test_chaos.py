"""Everything at once: whatever is done to a site, it does all of a transaction or nothing, and goes on by itself.

Three storms of forty seconds belong to CI; ``make chaos`` is an hour of them.  A seed says what is drawn, not when it
meets what: no two storms are the same.  ``controls`` has what makes a storm red.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from faults import EXIT_NO_REDIS, Hurt, Storm
from operator_of_site import recover
from oracles import World, left_on_disks, violations
from sites import Site
from workload import Workload

SECONDS = 40.0  # of a storm
HOSTS = ("a", "b", "c")
LEAST_RUNS = 4
REST = 0.05  # seconds between two looks


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if os.geteuid():
        pytest.skip("only root can mount")
    with closing(Site(tmp_path, HOSTS)) as made:
        yield made


def test_no_storm_splits_a_transaction_or_leaves_one_open(
    site: Site, storm_seed: int, request: pytest.FixtureRequest
) -> None:
    only = tuple(filter(None, request.config.getoption("--faults").split(",")))
    workload, hurt = Workload(site, storm_seed), Hurt(site, random.Random(storm_seed))  # noqa: S311 - for faults
    storm = Storm(hurt, only)
    workload.start()
    try:
        over = time.monotonic() + SECONDS
        while time.monotonic() < over:
            storm.blow()
            site.supervise()
            site.rest(REST)
    finally:
        storm.calm()
        workload.stop()
        print("\n".join(storm.log))
    seconds = recover(site, workload, lambda: left_on_disks(world_of(site, workload, hurt)), sweep=bool(hurt.rollbacks))
    found = [*violations(world_of(site, workload, hurt)), *ends_without_a_cause(site, hurt)]
    print(*found, *last_words(site), sep="\n")
    print(f"storm {storm_seed}: {sum(storm.counts.values())} faults {storm.counts}, messages {hurt.messages}, "
          f"{len(workload.sent)} runs, {workload.verbs} verbs, lost decisions {workload.accepted}, "
          f"{sum(len(each.unknown) for each in hurt.rollbacks)} transactions forgotten, "
          f"over after {seconds:.0f} s, {len(found)} violations")  # fmt: skip
    assert found == []
    assert sum(sent.acknowledged for sent in workload.sent) >= LEAST_RUNS, "too little went on to show anything"
    assert [name for name, count in storm.counts.items() if not count] == [], "a fault did not happen"


def world_of(site: Site, workload: Workload, hurt: Hurt) -> World:
    excused = {txn for rollback in hurt.rollbacks for txn in rollback.lost} if workload.accepted else set()
    unknown = {txn for rollback in hurt.rollbacks for txn in rollback.unknown}
    roots = {str(host): site.root(host) for host in site.hosts}
    return World(site.client, workload.sent, workload.digests, roots, frozenset(excused), frozenset(unknown))


def ends_without_a_cause(site: Site, hurt: Hurt) -> list[str]:
    """Processes that ended though nothing was done to them."""
    return [f"{name} ended by itself with exit code {code}" for name, code in site.ended
            if code not in hurt.excuses.get(name, {EXIT_NO_REDIS})]  # fmt: skip


def last_words(site: Site) -> list[str]:
    """The last line of each traceback in a log, for whoever looks for the cause of a violation."""
    found = set()
    for log in (site.place / "logs").glob("*.log"):
        lines = log.read_text(errors="replace").splitlines()
        for number in [number for number, line in enumerate(lines) if line.startswith("Traceback")]:
            end = next((each for each in lines[number + 1 :] if each and not each.startswith(" ")), "")
            found.add(f"{log.name}: {end[:200]}")
    return sorted(found)
