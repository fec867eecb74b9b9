"""A group commits on every host, or leaves nothing on any."""

from __future__ import annotations

import os

import pytest
from fleet import MIB, Fleet, files

from blockjobs.model import errors


def group(fleet: Fleet, *, failing: int = -1, mib: int = 20, fail_at: float = 0.9) -> list[dict[str, object]]:
    """Eight jobs on four hosts; one of them may meet EIO."""
    jobs: list[dict[str, object]] = []
    for number in range(8):
        host = fleet.hosts[number % 4]
        path = fleet.root(host) / f"disk{number}.img"
        if not path.exists():
            fleet.image(host, path.name, mib)
            os.truncate(path, 3 * mib * MIB)  # two thirds are a hole
        (fleet.root(host) / "backup").mkdir(exist_ok=True)
        source: object = f"{host}:{path}"
        if number == failing:
            rule = {"event": "none", "iotype": "read", "errno": 5, "sector": int(mib * MIB * fail_at) // 512}
            image = {"driver": "file", "filename": str(path)}
            source = {"driver": "blkdebug", "host": host, "image": image, "inject-error": [rule]}
        target = f"{host}:{fleet.root(host)}/backup/{{run}}/disk{number}.img"
        jobs.append({"id": f"disk{number}", "source": source, "target": target})
    return jobs


def test_a_group_whose_member_fails_late_leaves_nothing_and_the_next_run_commits(fleet: Fleet) -> None:
    jobs = group(fleet, failing=5)
    before = {host: files(fleet.root(host)) for host in fleet.hosts}
    plan = fleet.plan(jobs)
    run = fleet.submit(plan)
    fleet.until("RUN_ENDED", run)
    views = {view.id.removeprefix(f"{run}."): view for view in fleet.jobs(run)}
    assert views["disk5"].error.startswith("read of ")
    assert "Input/output error" in views["disk5"].error
    assert not views["disk5"].cancelled
    assert {view.error for name, view in views.items() if name != "disk5"} == {errors.ECANCELED_TEXT}
    assert {str(view.status) for view in views.values()} == {"concluded"}
    assert {host: files(fleet.root(host)) for host in fleet.hosts} == before
    decided = [e for e in fleet.registry.events.all() if e.run == run and e.name == "TRANSACTION_DECIDED"]
    assert [event.fields["decision"] for event in decided] == ["abort"]
    terminal = [e.name for e in fleet.registry.events.all() if e.run == run and e.name.startswith("BLOCK_JOB_C")]
    assert terminal.count("BLOCK_JOB_COMPLETED") == 1

    again = fleet.submit(fleet.plan(group(fleet)))
    ended = fleet.until("RUN_ENDED", again)
    assert (ended.fields["failed"], ended.fields["cancelled"]) == ("0", "0")
    for number in range(8):
        root = fleet.root(fleet.hosts[number % 4])
        source, target = root / f"disk{number}.img", root / "backup" / again / f"disk{number}.img"
        assert source.read_bytes() == target.read_bytes()
        assert target.stat().st_blocks <= source.stat().st_blocks * 1.01


def test_a_cancelled_run_leaves_nothing_and_its_locks_are_free(fleet: Fleet) -> None:
    jobs = group(fleet)
    before = {host: files(fleet.root(host)) for host in fleet.hosts}
    run = fleet.submit(fleet.plan(jobs, speed=2 * MIB))
    fleet.until("ATTEMPT_CLAIMED")
    with pytest.raises(errors.VolumeBusy):
        fleet.registry.submit.submit(fleet.plan([{**jobs[0], "target": jobs[0]["target"].replace("{run}", run)}]))  # type: ignore[attr-defined]
    fleet.registry.verbs.cancel(f"{run}.disk3")
    fleet.until("RUN_ENDED", run)
    assert {view.error for view in fleet.jobs(run)} == {errors.ECANCELED_TEXT}
    assert {host: files(fleet.root(host)) for host in fleet.hosts} == before
    assert not fleet.client.exists("bj:texts")
    assert not [host for host in fleet.hosts if fleet.client.exists(f"bj:h:{host}:locks")]


def test_jobs_of_an_individual_run_end_each_for_itself(fleet: Fleet) -> None:
    run = fleet.submit(fleet.plan(group(fleet, failing=2), grouped=False))
    ended = fleet.until("RUN_ENDED", run)
    assert (ended.fields["failed"], ended.fields["cancelled"]) == ("1", "0")
    assert [view.id for view in fleet.jobs(run) if view.error] == [f"{run}.disk2"]
    published = [n for n in range(8) if (fleet.root(fleet.hosts[n % 4]) / "backup" / run / f"disk{n}.img").exists()]
    assert published == [0, 1, 3, 4, 5, 6, 7]


def test_a_group_that_awaits_the_user_commits_when_any_member_is_finalized(fleet: Fleet) -> None:
    jobs = group(fleet)[:3]
    jobs[1]["auto_finalize"] = False
    run = fleet.submit(fleet.plan(jobs))
    fleet.until("BLOCK_JOB_PENDING", f"{run}.disk1")
    assert not [
        name for host in fleet.hosts for name in files(fleet.root(host)) if name.startswith(f"backup/{run}/disk")
    ]
    fleet.registry.verbs.finalize(f"{run}.disk0")
    ended = fleet.until("RUN_ENDED", run)
    assert (ended.fields["failed"], ended.fields["cancelled"]) == ("0", "0")
    assert (fleet.root("c") / "backup" / run / "disk2.img").exists()


def test_the_very_same_run_commits_once_the_fault_of_its_source_is_mended(fleet: Fleet) -> None:
    """The last tenth of one image is cut off while it is being read; afterwards it is there again."""
    jobs = group(fleet)
    image = fleet.root(fleet.hosts[1]) / "disk5.img"
    whole = image.read_bytes()
    before = {host: files(fleet.root(host)) for host in fleet.hosts}
    run = fleet.submit(fleet.plan(jobs, speed=6 * MIB))
    fleet.until("ATTEMPT_CLAIMED", f"{run}.disk5")
    fleet.until_offset(f"{run}.disk5", 6 * MIB)
    os.truncate(image, 18 * MIB)
    ended = fleet.until("RUN_ENDED", run)
    assert (ended.fields["failed"], ended.fields["cancelled"]) == ("1", "7")
    assert fleet.job(f"{run}.disk5").offset >= 17 * MIB, "it had come to nine tenths of its data"
    image.write_bytes(whole[: 20 * MIB])
    os.truncate(image, len(whole))
    assert {host: files(fleet.root(host)) for host in fleet.hosts} == before
    again = fleet.submit(fleet.plan(jobs, speed=0))
    ended = fleet.until("RUN_ENDED", again)
    assert (ended.fields["failed"], ended.fields["cancelled"]) == ("0", "0")
    assert (fleet.root(fleet.hosts[1]) / "backup" / again / "disk5.img").read_bytes() == whole
