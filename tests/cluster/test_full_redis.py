"""On a full Redis nothing new begins; what is under way comes to its end: copies, decision, publishing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis
from fleet import MIB, Fleet, files

SPEED = 12 * MIB  # the copies go on for some seconds


@pytest.fixture
def full(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet's Redis has room again when the test is over."""
    yield fleet
    fleet.client.config_set("maxmemory", 0)


def group(fleet: Fleet, *, failing: bool) -> list[dict[str, object]]:
    jobs: list[dict[str, object]] = []
    for host in fleet.hosts[:2]:
        path = fleet.image(host, f"full-{failing}.img", 32)
        (fleet.root(host) / "backup").mkdir(exist_ok=True)
        source: object = f"{host}:{path}"
        if failing and host == fleet.hosts[0]:
            rule = {"event": "none", "iotype": "read", "errno": 5, "sector": 28 * MIB // 512}
            image = {"driver": "file", "filename": str(path)}
            source = {"driver": "blkdebug", "host": host, "image": image, "inject-error": [rule]}
        target = f"{host}:{fleet.root(host)}/backup/{{run}}/full.img"
        jobs.append({"id": host, "source": source, "target": target, "speed": SPEED})
    return jobs


@pytest.mark.parametrize("failing", [False, True], ids=["commit", "abort"])
def test_what_is_under_way_comes_to_its_end_on_every_host(full: Fleet, failing: bool) -> None:
    jobs = group(full, failing=failing)
    before = {host: files(full.root(host)) for host in full.hosts}
    run = full.submit(full.plan(jobs))
    full.until_true(lambda: all(view.claimed for view in full.jobs(run)))
    full.client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        full.client.set("test:full", "x")
    ended = full.until("RUN_ENDED", run)
    assert (ended.fields["failed"], ended.fields["cancelled"]) == (("1", "1") if failing else ("0", "0"))
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        full.client.set("test:full", "x")
    assert all(view.attempts == 1 for view in full.jobs(run)), "nobody was taken for dead"
    if failing:
        assert {host: files(full.root(host)) for host in full.hosts} == before
        return
    for host in full.hosts[:2]:
        root = full.root(host)
        assert (root / "backup" / run / "full.img").read_bytes() == (root / f"full-{failing}.img").read_bytes()
        assert os.path.exists(root / "backup" / run / "full.img.manifest.json")
