"""QMP while others die or hang: the coordinator, Redis, a host; and a target that is replaced whole or not at all."""

from __future__ import annotations

import signal
from time import monotonic

from talk import story


def test_jobs_outlive_the_coordinator_and_who_comes_back_learns_what_happened(fleet, monitor, images):
    fleet.seq = fleet.registry.events.last()
    monitor.backup("j", "a", "b", speed=1)
    last = monitor.until_status("j", "running")[-1]["timestamp"]
    fleet.until("ATTEMPT_CLAIMED", "j")
    fleet.kill("coordinator")
    fleet.registry.verbs.set_speed("j", 0)
    fleet.until_status("j", "null")
    fleet.start("coordinator")
    monitor.again()
    assert story(monitor.ok("x-events-since", since=last)["events"]) == [
        "j waiting", "j pending", "j BLOCK_JOB_COMPLETED", "j concluded", "j null",
    ]  # fmt: skip
    assert (images / "a.img").read_bytes() == (images / "b.img").read_bytes()


def test_an_absence_of_redis_is_an_error_and_then_over(fleet, monitor, images):
    monitor.backup("j", "a", "b", speed=1)
    monitor.until_status("j", "running")
    fleet.server.stop()
    assert "Redis is not reachable" in monitor.no("job-pause", id="j")
    fleet.server.start()
    monitor.raw("job-pause", id="j")
    assert monitor.no("job-pause", id="j") == "Job is already paused"
    monitor.until_status("j", "paused")  # events flow again


def test_a_host_that_hangs_makes_nobody_wait_for_long(fleet, monitor, images):
    fleet.kill("steps@a", signal.SIGSTOP)
    began = monotonic()
    refusal = monitor.no("blockdev-backup", job_id="j", device="a", target="b", sync="full")
    assert refusal == "host 'a' did not answer within 3 s"
    assert monotonic() - began < 5
    assert monitor.ok("query-jobs") == []


def test_a_target_keeps_its_content_until_the_commit(fleet, monitor, images):
    before = (images / "b.img").read_bytes()
    monitor.backup("j", "a", "b", auto_finalize=False)
    monitor.until("BLOCK_JOB_PENDING", "j")
    assert (images / "b.img").read_bytes() == before
    monitor.ok("job-cancel", id="j")
    monitor.until_status("j", "null")
    assert (images / "b.img").read_bytes() == before
    assert not list(images.glob(".b.img*"))


def test_a_target_may_go_after_it_was_seen_and_come_into_being(fleet, monitor, images):
    target = str(images / "new.img")
    monitor.ok("drive-backup", job_id="j", device="a", target=target, sync="full")
    monitor.until_status("j", "null")
    assert (images / "new.img").read_bytes() == (images / "a.img").read_bytes()
    refusal = monitor.no("drive-backup", job_id="j", device="a", target=f"{target}2", sync="full", mode="existing")
    assert refusal == f"Could not open '{target}2': No such file or directory"
    outside = monitor.no("drive-backup", job_id="j", device="a", target="/nowhere/new.img", sync="full")
    assert "outside the write roots of host a" in outside
    assert monitor.no("drive-backup", job_id="j", device="a", target=target, sync="full", format="qed") == (
        "Unknown file format 'qed'"
    )
    assert monitor.ok("query-jobs") == []
