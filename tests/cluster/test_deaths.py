"""Whatever dies, a job goes on from its last durable checkpoint, or fails with a reason; nobody writes twice."""

from __future__ import annotations

import os
import signal
import statistics
from pathlib import Path

import psutil
import pytest
from fleet import MIB, Fleet, alive

from blockjobs.model.ids import Host

INTERVAL = 128 * MIB  # what a crash may cost, see Copy


def backup(fleet: Fleet, host: str, *, mib: int, speed: int, name: str = "big.img") -> tuple[str, str, Path, Path]:
    """Start one backup; run, job id, source, target."""
    source = fleet.root(host) / name
    if not source.exists() or source.stat().st_size != mib * MIB:
        fleet.image(host, name, mib)
    target = f"{host}:{fleet.root(host)}/{{run}}.img"
    plan = fleet.plan([{"id": "big", "source": f"{host}:{source}", "target": target}], speed=speed)
    run = fleet.submit(plan)
    return run, f"{run}.big", source, fleet.root(host) / f"{run}.img"


def read_bytes(pid: int) -> int:
    """Bytes that a process read by system calls: the kernel's word, not ours."""
    words = Path(f"/proc/{pid}/io").read_text().split()
    return int(words[words.index("rchar:") + 1])


@pytest.mark.alone
def test_a_killed_writer_is_released_at_once_and_copies_at_most_one_interval_twice(fleet: Fleet) -> None:
    run, job, source, target = backup(fleet, "a", mib=160, speed=40 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    first = fleet.writer("a", job)
    at_start = read_bytes(first)
    fleet.until_durable("a", job)
    read_first = read_bytes(first) - at_start
    killed = fleet.registry.hosts.now()
    os.kill(first, signal.SIGKILL)
    released = fleet.until("ATTEMPT_RELEASED", job)
    assert released.fields["reason"] == "dead"
    assert released.at - killed / 1000 < 2.0
    fleet.until("ATTEMPT_CLAIMED", job)
    second = fleet.writer("a", job)
    at_start = read_bytes(second)
    fleet.registry.verbs.set_speed(job, 0)
    fleet.until_status(job, "waiting")
    read_second = read_bytes(second) - at_start
    fleet.until("RUN_ENDED", run)
    twice = read_first + read_second - source.stat().st_size
    assert read_second < source.stat().st_size, "it began again at 0"
    assert twice <= INTERVAL + 4 * MIB
    assert target.read_bytes() == source.read_bytes()
    assert fleet.job(job).attempts == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_what_killed_an_attempt_and_where_its_log_is_are_told(fleet: Fleet, number: signal.Signals) -> None:
    run, job, source, target = backup(fleet, "c", mib=40, speed=20 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_offset(job, 10 * MIB)
    os.kill(fleet.writer("c", job), number)
    fleet.until("RUN_ENDED", run)
    log = str(fleet.place / "logs" / "copy@c.log")
    fleet.until_true(lambda: fleet.job(job).died)
    assert fleet.job(job).died == f"killed by {number.name}; log: {log}"
    fleet.registry.events.merge([Host("c")])
    (died,) = [each for each in fleet.registry.events.all() if (each.name, each.id) == ("ATTEMPT_DIED", job)]
    assert died.fields | {"uuid": ""} == {"how": f"killed by {number.name}", "log": log, "uuid": ""}
    assert target.read_bytes() == source.read_bytes()


def test_a_frozen_writer_is_killed_before_another_one_writes(fleet: Fleet) -> None:
    run, job, source, target = backup(fleet, "b", mib=60, speed=20 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_offset(job, 20 * MIB)
    zombie = psutil.Process(fleet.writer("b", job))
    zombie.suspend()
    released = fleet.until("ATTEMPT_RELEASED", job)
    assert released.fields["reason"] == "fenced"
    assert not alive(zombie)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()


def test_a_copy_goes_on_while_its_workers_parent_is_restarted(fleet: Fleet) -> None:
    run, job, source, target = backup(fleet, "c", mib=60, speed=20 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_offset(job, 15 * MIB)
    fleet.kill("copy@c", signal.SIGTERM)
    assert fleet.until("ATTEMPT_RELEASED", job).fields["reason"] == "drained"
    assert fleet.job(job).lost == 0
    fleet.start("copy@c")
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()
    assert fleet.job(job).bytes["recopied"] == 0, "what a drained attempt copied was durable"


def test_a_copy_survives_the_death_of_redis(fleet: Fleet) -> None:
    run, job, source, target = backup(fleet, "d", mib=80, speed=20 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_offset(job, 20 * MIB)
    fleet.server.kill()
    fleet.server.start()
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()
    assert fleet.job(job).attempts == 1


def test_every_process_of_the_control_plane_may_die_in_mid_copy(fleet: Fleet) -> None:
    run, job, source, target = backup(fleet, "a", mib=60, speed=20 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    for name in ("coordinator", "finalizer", "steps@a"):
        fleet.restart(name)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.alone
def test_pausing_is_quick_and_nothing_is_written_until_resume(fleet: Fleet) -> None:
    run, job, _, _ = backup(fleet, "a", mib=120, speed=8 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    staging = next(fleet.root("a").glob(f".{run}.img.*.part"))
    latencies = []
    for _ in range(20):
        fleet.registry.verbs.pause(job)
        held = fleet.until("JOB_HELD", job)
        paused = fleet.until_status(job, "paused")
        latencies.append(paused.at - held.at)
        view, frozen = fleet.job(job), staging.stat()
        assert view.paused
        assert not view.busy
        fleet.rest(0.1)
        assert staging.stat().st_mtime_ns == frozen.st_mtime_ns
        assert fleet.job(job).offset == view.offset
        fleet.registry.verbs.resume(job)
        fleet.until_status(job, "running")
    assert statistics.median(latencies) <= 0.050, sorted(latencies)
    fleet.registry.verbs.set_speed(job, 0)
    fleet.until("RUN_ENDED", run)
    assert fleet.job(job).bytes["read"] == 120 * MIB, "it continued where it was"


def test_a_job_that_waits_for_a_slot_is_paused_at_once(fleet: Fleet) -> None:
    source = fleet.image("a", "queue.img", 8)
    jobs: list[dict[str, object]] = [
        {"id": f"q{n}", "source": f"a:{source}", "target": f"a:{fleet.root('a')}/{{run}}-q{n}.img"} for n in range(4)
    ]
    run = fleet.submit(fleet.plan(jobs, speed=2 * MIB))
    first = fleet.until("ATTEMPT_CLAIMED")
    fleet.until("ATTEMPT_CLAIMED", when=lambda event: event.id != first.id)
    waiting = next(view for view in fleet.jobs(run) if not view.claimed)
    assert fleet.registry.verbs.pause(waiting.id) == "paused"
    assert not fleet.job(waiting.id).busy
    fleet.registry.verbs.resume(waiting.id)
    for job in fleet.jobs(run):
        if job.status in ("running", "paused"):
            fleet.registry.verbs.set_speed(job.id, 0)
    fleet.until("RUN_ENDED", run)
    assert {str(view.status) for view in fleet.jobs(run)} == {"concluded"}
