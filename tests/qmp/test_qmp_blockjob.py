"""QEMU's ``tests/unit/test-blockjob.c``, case by case, through QMP."""

from __future__ import annotations

import pytest

IDS = {
    "wrong": ["0id", "", "   ", "123", "_id", "-id", ".id", "#id"],
    "right": ["id0", "id_2", "ok-._9", "drive1"],
}
MANUAL = {"auto_finalize": False, "auto_dismiss": False}


def test_blockjob_ids(monitor, images):
    for wrong in IDS["wrong"]:
        assert monitor.no("blockdev-backup", job_id=wrong, device="a", target="b", sync="full") == (
            f"Invalid job ID '{wrong}'"
        )
    for right in IDS["right"]:
        monitor.backup(right, "a", "b", speed=1)
        taken = monitor.no("blockdev-backup", job_id=right, device="c", target="d", sync="full")
        assert taken == f"Job ID '{right}' already in use"
        monitor.ok("job-cancel", id=right)
        monitor.until_status(right, "null")


def test_blockjob_id_is_taken_until_it_is_dismissed(monitor, images):
    monitor.backup("id0", "a", "b", auto_dismiss=False)
    monitor.until_status("id0", "concluded")
    assert monitor.no("blockdev-backup", job_id="id0", device="a", target="b", sync="full") == (
        "Job ID 'id0' already in use"
    )
    monitor.ok("job-dismiss", id="id0")
    monitor.backup("id0", "a", "b")
    monitor.until_status("id0", "null")


def cancelled(monitor, job):
    """Cancel by force; it concludes, and is gone when it is dismissed."""
    monitor.ok("job-cancel", id=job)
    monitor.until_status(job, "concluded")
    (left,) = monitor.ok("query-jobs")
    assert (left["status"], left["error"]) == ("concluded", "Operation canceled")
    monitor.ok("job-dismiss", id=job)
    assert monitor.ok("query-jobs") == []


def test_blockjob_cancel_running(monitor, images):
    monitor.backup("job", "a", "b", speed=1, **MANUAL)
    cancelled(monitor, "job")


def test_blockjob_cancel_paused(monitor, images):
    monitor.backup("job", "a", "b", speed=1, **MANUAL)
    monitor.ok("job-pause", id="job")
    monitor.until_status("job", "paused")
    cancelled(monitor, "job")


def mirror(monitor):
    monitor.ok("blockdev-mirror", job_id="job", device="a", target="b", sync="full",
               auto_finalize=False, auto_dismiss=False)  # fmt: skip
    monitor.until("BLOCK_JOB_READY", "job")


def test_blockjob_cancel_ready(monitor, images):
    mirror(monitor)
    cancelled(monitor, "job")


def test_blockjob_cancel_standby(monitor, images):
    mirror(monitor)
    monitor.ok("job-pause", id="job")
    monitor.until_status("job", "standby")
    cancelled(monitor, "job")


def test_blockjob_cancel_pending(monitor, images):
    mirror(monitor)
    monitor.ok("job-complete", id="job")
    monitor.until("BLOCK_JOB_PENDING", "job")
    cancelled(monitor, "job")


def test_blockjob_cancel_concluded(monitor, images):
    mirror(monitor)
    monitor.ok("job-complete", id="job")
    monitor.until("BLOCK_JOB_PENDING", "job")
    monitor.ok("job-finalize", id="job")
    monitor.until_status("job", "concluded")
    assert monitor.no("job-cancel", id="job") == "Job 'job' in state 'concluded' cannot accept command verb 'cancel'"
    monitor.ok("job-dismiss", id="job")
    assert (images / "a.img").read_bytes() == (images / "b.img").read_bytes()


@pytest.mark.parametrize("command", ["job-cancel", "block-job-cancel"])
def test_blockjob_cancel_of_what_is_ready_is_soft_only_where_it_is_asked_for(monitor, images, command):
    mirror(monitor)
    monitor.ok(command, **{"id" if command == "job-cancel" else "device": "job"})
    ends = {"job-cancel": "BLOCK_JOB_CANCELLED", "block-job-cancel": "BLOCK_JOB_PENDING"}
    monitor.until(ends[command], "job")
