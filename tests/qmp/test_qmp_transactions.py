"""QEMU's ``tests/unit/test-blockjob-txn.c``, case by case, through QMP; and what a grouped transaction promises."""

from __future__ import annotations

from time import monotonic

import pytest
from talk import action, story

CANCELED = "Operation canceled"
EIO = "Input/output error"
KEPT = {"auto-dismiss": False}


def faulty(monitor, image, node="bad", **rule):
    """A node in front of an image whose reads fail at 2 MiB."""
    rule = {"event": "none", "iotype": "read", "sector": 4096, **rule}
    monitor.ok("blockdev-add", driver="blkdebug", node_name=node, image=image, inject_error=[rule])
    return node


def start(monitor, *members, mode="grouped"):
    """A transaction of backups given as (job, device, target, more)."""
    actions = [action(*each[:3], **{**KEPT, **(each[3] if len(each) > 3 else {})}) for each in members]
    monitor.ok("transaction", actions=actions, properties={"completion-mode": mode})


def results(monitor, *jobs):
    """Each job's error, "" for none, once all are concluded."""
    waiting = set(jobs)
    for event in monitor.events():
        if event["data"].get("status") == "concluded":
            waiting.discard(event["data"]["id"])
        if not waiting:
            break
    errors = {job["id"]: job.get("error", "") for job in monitor.ok("query-jobs")}
    return tuple(errors[job] for job in jobs)


def test_single_success(monitor, images):
    start(monitor, ("j", "a", "b"))
    assert results(monitor, "j") == ("",)
    assert (images / "a.img").read_bytes() == (images / "b.img").read_bytes()


def test_single_failure(monitor, images):
    start(monitor, ("j", faulty(monitor, "a"), "b"))
    assert results(monitor, "j") == (EIO,)


def test_single_cancel(monitor, images):
    start(monitor, ("j", "a", "b", {"speed": 1}))
    monitor.ok("job-cancel", id="j")
    assert results(monitor, "j") == (CANCELED,)


def test_pair_success(monitor, images):
    start(monitor, ("j1", "a", "b"), ("j2", "c", "d"))
    assert results(monitor, "j1", "j2") == ("", "")


@pytest.mark.parametrize("bad", [1, 2])
def test_pair_failure(monitor, images, bad):
    before = (images / "b.img").read_bytes(), (images / "d.img").read_bytes()
    node = faulty(monitor, "a" if bad == 1 else "c")
    start(monitor, ("j1", node if bad == 1 else "a", "b"), ("j2", node if bad == 2 else "c", "d"))
    assert results(monitor, "j1", "j2") == ((EIO, CANCELED) if bad == 1 else (CANCELED, EIO))
    assert ((images / "b.img").read_bytes(), (images / "d.img").read_bytes()) == before


@pytest.mark.parametrize("cancelled", ["j1", "j2"])
def test_pair_cancel(monitor, images, cancelled):
    start(monitor, ("j1", "a", "b", {"speed": 1}), ("j2", "c", "d", {"speed": 1}))
    monitor.ok("job-cancel", id=cancelled)
    assert results(monitor, "j1", "j2") == (CANCELED, CANCELED)


def test_pair_fail_cancel_race(monitor, images):
    """One was cancelled while the other had finished already: both are cancelled."""
    start(monitor, ("j1", "a", "b", {"speed": 1}), ("j2", "c", "d"))
    monitor.until_status("j2", "waiting")
    monitor.ok("job-cancel", id="j1")
    assert results(monitor, "j1", "j2") == (CANCELED, CANCELED)


def test_members_end_newest_first_whoever_failed(monitor, images):
    monitor.ok("blockdev-add", driver="null-co", node_name="n", size=4 << 20)
    start(monitor, ("j0", "c", "b", {"speed": 1}), ("j1", faulty(monitor, "a"), "n"), ("j2", "d", "e", {"speed": 1}))
    told = story(monitor.until_status("j0", "concluded"))
    assert [each for each in told if "BLOCK_JOB" in each or "concluded" in each] == [
        "j1 BLOCK_JOB_ERROR",
        "j2 BLOCK_JOB_CANCELLED",
        "j2 concluded",
        "j1 BLOCK_JOB_COMPLETED",
        "j1 concluded",
        "j0 BLOCK_JOB_CANCELLED",
        "j0 concluded",
    ]


def test_a_failing_action_behind_good_ones_is_answered_at_once_and_leaves_nothing(monitor, images):
    """QEMU never answers this one: its undo waits for a job that was not started."""
    began = monotonic()
    reply = monitor.transaction(("t1", "a", "b"), ("t2", "c", "d"), ("t3", "e", "nope"))
    assert monotonic() - began < 1
    assert reply["error"]["desc"] == "Cannot find device='nope' nor node-name='nope'"
    assert monitor.ok("query-jobs") == []
    assert not list(images.glob("*.part"))


def test_an_abort_undoes_all_and_an_empty_transaction_succeeds(monitor, images):
    abort = {"type": "abort", "data": {}}
    refusal = "Transaction aborted using Abort action"
    for mode in ("grouped", "individual"):
        actions = [action("t", "a", "b"), abort]
        assert monitor.no("transaction", actions=actions, properties={"completion-mode": mode}) == refusal
    assert monitor.ok("query-jobs") == []
    assert monitor.ok("transaction", actions=[]) == {}


def test_individual_members_go_their_own_ways(monitor, images):
    start(monitor, ("j1", faulty(monitor, "a"), "b"), ("j2", "c", "d"), mode="individual")
    assert results(monitor, "j1", "j2") == (EIO, "")
    assert (images / "c.img").read_bytes() == (images / "d.img").read_bytes()


@pytest.mark.parametrize("verb", ["job-finalize", "job-cancel"])
def test_one_that_waits_for_the_user_holds_the_group_and_any_member_speaks_for_all(monitor, images, verb):
    start(monitor, ("j1", "a", "b"), ("j2", "c", "d", {"auto-finalize": False}))
    told = story(monitor.until("BLOCK_JOB_PENDING", "j2"))
    assert "j1 BLOCK_JOB_PENDING" not in told
    assert [job["status"] for job in monitor.ok("query-jobs")] == ["pending", "pending"]
    monitor.ok(verb, id="j1")
    assert results(monitor, "j1", "j2") == (("", "") if verb == "job-finalize" else (CANCELED, CANCELED))


def test_an_error_that_stops_a_job_holds_it_once_and_a_resume_goes_on(monitor, images):
    node = faulty(monitor, "a", once=True)
    monitor.backup("j", node, "b", on_source_error="stop", auto_dismiss=False)
    told = story(monitor.until_status("j", "paused"))
    assert told.index("j BLOCK_JOB_ERROR") < told.index("j paused")
    (job,) = monitor.ok("query-block-jobs")
    assert (job["io-status"], job["paused"]) == ("failed", True)
    assert monitor.no("block-job-cancel", device="j") == "The block job for device 'j' is currently paused"
    monitor.ok("job-resume", id="j")
    assert monitor.ok("query-block-jobs")[0]["io-status"] == "ok"
    assert results(monitor, "j") == ("",)
    assert (images / "a.img").read_bytes() == (images / "b.img").read_bytes()
