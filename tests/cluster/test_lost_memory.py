"""A registry that lost its memory decides nothing, and says why; a copy that hangs is ended, and says so."""

from __future__ import annotations

import json

import pytest
from fleet import MIB, Fleet

from blockjobs.client.fleet import Fleet as Client
from blockjobs.model import errors
from blockjobs.model.ids import Host
from blockjobs.registry import keys


def test_a_registry_that_came_back_older_decides_nothing(fleet: Fleet) -> None:
    source = fleet.image("a", "memory.img", 8)
    jobs: list[dict[str, object]] = [{"id": "m", "source": f"a:{source}", "target": f"a:{fleet.root('a')}/{{run}}.img"}]
    fleet.until("RUN_ENDED", fleet.submit(fleet.plan(jobs)))
    known = int(fleet.client.get(keys.decisions()))
    record = json.loads((fleet.place / "state" / "a" / "highest.json").read_text())
    assert record["number"] == known
    run = fleet.submit(fleet.plan(jobs, speed=4 * MIB))
    fleet.until("ATTEMPT_CLAIMED", f"{run}.m")
    fleet.client.set(keys.decisions(), known - 1)  # what a restored backup of Redis looks like
    fleet.until_status(f"{run}.m", "pending")
    txn = fleet.job(f"{run}.m").transaction
    fleet.until_true(lambda: (view := fleet.registry.views.transaction(txn)) and "has taken decision" in view.doubt)
    fleet.until_true(lambda: fleet.registry.memory.doubt_hosts([Host("a")]))
    assert not (fleet.root("a") / f"{run}.img").exists()
    with Client(fleet.server.url) as coordinator, pytest.raises(errors.Refused, match="carried out decision"):
        coordinator.submit(fleet.plan(jobs))
    fleet.client.set(keys.decisions(), known)
    fleet.registry.transactions.remind()
    fleet.until("RUN_ENDED", run)
    assert (fleet.root("a") / f"{run}.img").read_bytes() == source.read_bytes()


def test_a_copy_that_hangs_is_ended_and_after_three_such_attempts_the_job_fails(fleet: Fleet) -> None:
    """A source whose every read takes 40 s: no progress for longer than the job allows, three times over."""
    source = {"driver": "null-co", "host": "b", "size": 64 * MIB, "latency-ns": 40_000_000_000}
    target = {"driver": "null-co", "host": "b"}
    run = fleet.submit(fleet.plan([{"id": "hung", "source": source, "target": target}], stall_limit=2))
    for _ in range(3):
        assert fleet.until("JOB_STALLED", f"{run}.hung").fields["seconds"] == "2"
        assert fleet.until("ATTEMPT_RELEASED", f"{run}.hung").fields["reason"] == "dead"
    fleet.until("RUN_ENDED", run)
    assert "3 attempts in a row were lost" in fleet.job(f"{run}.hung").error
