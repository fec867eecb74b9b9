"""A drained host comes to rest with everything durable, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet import MIB, Fleet

from blockjobs.client.fleet import Fleet as Client
from blockjobs.model import errors

Job = tuple[str, str, Path, Path]


def backup(fleet: Fleet, host: str, name: str, *, mib: int = 40) -> Job:
    """Start one backup, which takes longer than what a test does meanwhile; run, job id, source, target."""
    source = fleet.root(host) / f"{name}.img"
    if not source.exists():
        fleet.image(host, source.name, mib)
    target = f"{host}:{fleet.root(host)}/{{run}}.img"
    run = fleet.submit(fleet.plan([{"id": name, "source": f"{host}:{source}", "target": target}], speed=2 * MIB))
    return run, f"{run}.{name}", source, fleet.root(host) / f"{run}.img"


@pytest.fixture
def here(fleet: Fleet) -> Client:
    return Client(fleet.server.url)


def test_a_drained_host_parks_its_jobs_and_continues_from_the_very_byte(fleet: Fleet, here: Client) -> None:
    with here:
        run, job, source, target = backup(fleet, "a", "drained")
        fleet.until_offset(job, 2 * MIB)
        assert here.drain("a", cause="kernel update") == 1
        here.wait_drained("a", 10)
        view = fleet.job(job)
        assert (str(view.status), view.busy, view.claimed) == ("paused", False, False)
        assert view.holds == {"drain:a": "kernel update"}
        later, new, *_ = backup(fleet, "a", "later", mib=1)
        fleet.until_status(new, "paused")
        assert here.get(new).attempts == 0
        assert {host.name: host.running for host in here.hosts()}["a"] == 0
        fleet.restart("copy@a")  # what a drain is for
        assert here.undrain("a") == 2
        here.registry.verbs.set_speed(job, 0)
        assert here.wait([run, later], 30) == {run: True, later: True}
        assert target.read_bytes() == source.read_bytes()
        view = fleet.job(job)
        assert (view.attempts, view.lost, view.bytes["recopied"]) == (2, 0, 0)


def test_a_drained_volume_holds_the_jobs_that_use_it_and_no_other(fleet: Fleet, here: Client) -> None:
    with here:
        run, job, source, _ = backup(fleet, "b", "volume")
        other, running, *_ = backup(fleet, "b", "other")
        fleet.until_offset(job, MIB)
        assert here.drain(f"b:{source}") == 1
        here.wait_drained(f"b:{source}", 10)
        assert [fleet.job(each).paused for each in (job, running)] == [True, False]
        assert here.undrain(f"b:{source}") == 1
        for each in (job, running):
            here.set_speed(each, 0)
        assert here.wait([run, other], 30) == {run: True, other: True}
        with pytest.raises(errors.Refused, match="is not drained"):
            here.undrain(f"b:{source}")


def test_a_paused_job_is_quiescent_soon_and_one_that_nobody_holds_never(fleet: Fleet, here: Client) -> None:
    with here:
        run, job, *_ = backup(fleet, "c", "still")
        fleet.until_offset(job, MIB)
        with pytest.raises(errors.WaitTimedOut, match="not quiescent yet"):
            here.wait_quiescent([run], 0)
        here.pause(job)
        here.wait_quiescent([run], 5)
        assert fleet.job(job).claimed, "a pause keeps the slot for a while"
        assert here.cancel(job, wait=True, timeout=10) == "concluded"
        assert not here.run(run).open


def test_everything_is_cancelled_newest_first(fleet: Fleet, here: Client) -> None:
    with here:
        runs = [backup(fleet, host, "end")[0] for host in ("a", "b", "a")]
        fleet.until("ATTEMPT_CLAIMED")
        assert here.cancel_all(wait=True, timeout=20) == 3
        assert [here.run(run).cancelled for run in runs] == [1, 1, 1]
        order = [e.id for e in here.events() if e.name == "BLOCK_JOB_CANCELLED" and e.run in runs]
        assert set(order) <= {f"{run}.end" for run in runs}


def test_a_ready_mirror_stands_by_parked_while_its_host_is_drained(fleet: Fleet, here: Client) -> None:
    with here:
        source, target = fleet.image("d", "mirrored.img", 4), fleet.root("d") / "mirrored.out"
        plan = fleet.plan([{"id": "m", "type": "mirror", "source": f"d:{source}", "target": f"d:{target}"}])
        job = f"{fleet.submit(plan)}.m"
        fleet.until("BLOCK_JOB_READY", job)
        here.drain("d")
        here.wait_drained("d", 20)
        view = fleet.job(job)
        assert (str(view.status), view.claimed) == ("standby", False)
        here.undrain("d")
        fleet.until("JOB_UNHELD", job)
        fleet.until("ATTEMPT_CLAIMED", job)
        assert fleet.job(job).status == "ready"
        assert here.complete(job, wait=True, timeout=30) == "concluded"
        assert target.read_bytes() == source.read_bytes()
