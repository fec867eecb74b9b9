"""What an operator is told about a job that does not move."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from blockjobs.cli.why import Scene, absent_hosts_owing, reason_of_slowness, reasons_to_wait
from blockjobs.model import volumespec
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.states import Status
from blockjobs.registry.hosts import HostView
from blockjobs.registry.limits import StoreView
from blockjobs.registry.views import JobView, TxnView

NOW = int(datetime(2026, 11, 22, 12, 1, 15).astimezone().timestamp()) * 1000
THEN = NOW - 12_000
AGO = "since 12:01:03 (12 s)"
RUN = "nightly-20261122T103000Z"
SPEC = JobSpec(
    id=JobId("j"), transaction=TxnId(RUN), run=RunId(RUN), source=volumespec.parse_volume("db1:/a"),
    target=volumespec.parse_volume("db1:/b"),
)  # fmt: skip


def job(status, **fields):
    given = {
        "id": JobId("j"), "host": Host("db1"), "transaction": TxnId(RUN), "run": RunId(RUN), "type": "backup",
        "spec": SPEC, "offset": 0, "len": 100, "speed": 0, "busy": False, "holds": {}, "io_status": "ok", "ret": 0,
        "error": "", "cancelled": False, "claimed": False, "attempts": 0, "lost": 0, "passed": "", "unsettled": "",
        "created": THEN, "started": 0, "ended": 0, "now": NOW,
    }  # fmt: skip
    return JobView(status=Status(status), **(given | fields))


def host(name="db1", state="up", running=0):
    return HostView(Host(name), state, THEN, "", 2, {}, 1, running, 0)


def stuck(path, point, transaction="other", name="db1"):
    """A host on which a path hangs."""
    each = {"path": path, "point": point, "since": THEN / 1000, "about": "OPEN", "transaction": transaction}
    return HostView(Host(name), "up", THEN, "", 2, {"hanging": [each]}, 1, 0, 0)


def txn(barrier, decision="", **owing):
    return TxnView(TxnId(RUN), RunId(RUN), 4, barrier, THEN, decision, 1, "", owing)


TO_NAS = replace(SPEC, store="nas1")
NAS = StoreView("nas1", "/mnt/nas1", 8, 60 << 20, THEN, "run x", 0, 8, 4)
PLACE = "waits for a place in store nas1: 8 of 8 copies run, 3 ahead"
OTHER = "nightly-20261121T103000Z"


def scene(
    status, *, transaction=None, hosts=(), ahead=None, dead=(), held_since=None, store=None, before=None, behind="",
    **fields,
):  # fmt: skip
    return Scene(
        store=store, before=before, behind=behind,
        job=job(status, **fields), txn=transaction, hosts={each.name: each for each in hosts or [host()]}, ahead=ahead,
        daemons={name: name not in dead for name in ("coordinator", "finalizer")}, held_since=held_since or {},
    )  # fmt: skip


PREPARE = txn("prepare", db1={"prepare": 1}, web1={"prepare": 0})
CASES = {
    "copies": (scene("running", claimed=True), []),
    "over": (scene("concluded", holds={"user": ""}), []),
    "slot": (scene("running", hosts=[host(running=2)], ahead=3), ["waits for a slot on db1: 2 running, 3 ahead"]),
    "attempt-hangs": (
        scene("running", claimed=True, hangs=(THEN, "/b")), [f"/b on host db1 hangs {AGO}: its attempt waits for it"]
    ),
    "would-hang": (
        scene("running", hosts=[stuck("/b/x", "/b")], ahead=0),
        ["waits for a slot on db1: 0 running, 0 ahead", f"on host db1 /b/x hangs {AGO}: OPEN"],
    ),
    "another-hangs": (
        scene("running", hosts=[stuck("/c/x", "/c")], ahead=0), ["waits for a slot on db1: 0 running, 0 ahead"]
    ),
    "a-step-hangs": (
        scene("created", hosts=[host(), stuck("/c/x", "/c", RUN, "web1")], transaction=txn("open", web1={"open": 1})),
        [f"waits for web1, which owes OPEN {AGO}", f"on host web1 /c/x hangs {AGO}: OPEN"],
    ),
    "place": (scene("running", spec=TO_NAS, full=True, store=NAS, before=3), [PLACE]),
    "turn": (scene("created", transaction=txn("queued"), behind=OTHER), [f"queued: waits for run {OTHER} to end"]),
    "slot-of-a-dead-host": (scene("running", hosts=[host(state="down")], ahead=0), [f"host db1 is down {AGO}"]),
    "host-dies-under-it": (scene("running", claimed=True, hosts=[host(state="down")]), [f"host db1 is down {AGO}"]),
    "nobody-rings": (
        scene("running", ahead=0, dead=["coordinator"]),
        ["waits for a slot on db1: 0 running, 0 ahead", "the coordinator is not running: waiting jobs are not started"],
    ),
    "user": (scene("paused", holds={"user": ""}, held_since={"user": THEN / 1000}), [f"held by user ({AGO})"]),
    "error": (scene("paused", holds={"user": "disk is full"}), ["held by user: disk is full"]),
    "pausing": (
        scene("running", claimed=True, busy=True, holds={"user": ""}),
        ["held by user; its attempt has not stopped yet"],
    ),
    "creation-is-no-hold": (
        scene("created", holds={"created": ""}, transaction=txn("open", db1={"open": 1})),
        [f"waits for db1, which owes OPEN {AGO}"],
    ),
    "a-hold-that-came-too-late": (
        scene("waiting", holds={"user": ""}, transaction=txn("run", db1={"run": 0}, web1={"run": 2}),
              hosts=[host(), host("web1")]),
        ["waits for 2 members of its transaction to be copied: 2 on web1"],
    ),
    "a-peer-is-away": (
        scene("waiting", transaction=txn("run", web1={"run": 1}), hosts=[host(), host("web1", "down")]),
        ["waits for 1 member of its transaction to be copied: 1 on web1", f"host web1 is down {AGO}"],
    ),
    "finalize": (
        scene("pending", transaction=txn("finalize", db1={"prepare": 1})),
        [f"waits for finalize {AGO}: blockjobs finalize {RUN}"],
    ),
    "prepare": (scene("pending", transaction=PREPARE), [f"waits for db1, which owes PREPARE {AGO}"]),
    "prepare-of-two": (
        scene("pending", transaction=txn("prepare", db1={"prepare": 1}, web1={"prepare": 3}),
              hosts=[host(), host("web1")]),
        [f"waits for db1, web1, which owe PREPARE {AGO}"],
    ),
    "prepare-of-a-dead-host": (
        scene("pending", transaction=PREPARE, hosts=[host(state="left")]),
        [f"host db1 is left {AGO}", f"waits for db1, which owes PREPARE {AGO}"],
    ),
    "nobody-decides": (
        scene("pending", transaction=txn("prepare", db1={"prepare": 0}), dead=["finalizer"]),
        ["waits for the finalizer", "the finalizer is not running: transactions are not opened, decided or ended"],
    ),
    "not-published": (
        scene("pending", unsettled="/b exists", transaction=txn("settle", "commit", db1={"settle": 1})),
        ["committed, not published: /b exists", f"waits for db1, which owes SETTLE {AGO}"],
    ),
    "not-cleaned": (
        scene("aborting", unsettled="/b: busy", transaction=txn("settle", "abort", db1={"settle": 1})),
        ["aborted, not cleaned up: /b: busy", f"waits for db1, which owes SETTLE {AGO}"],
    ),
    "unwinding": (scene("aborting", claimed=True), ["waits for its attempt to end"]),
}  # fmt: skip


@pytest.mark.parametrize(("given", "told"), CASES.values(), ids=CASES.keys())
def test_a_job_says_why_it_does_not_move(given, told):
    assert reasons_to_wait(given) == told


def test_hosts_that_are_away_are_named_with_what_they_owe():
    hosts = {each.name: each for each in (host(), host("web1", "down"), host("web2", "down"))}
    transaction = txn("settle", "commit", db1={"settle": 1}, web1={"settle": 2}, web2={"settle": 0})
    assert absent_hosts_owing(transaction, hosts, NOW / 1000) == [f"host web1 is down {AGO} and owes SETTLE"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (scene("running", claimed=True, limit=0), ""),
        (scene("running", claimed=True, limit=20 << 20, speed=10 << 20), ""),
        (scene("running", claimed=False, limit=20 << 20), ""),
        (
            scene("running", claimed=True, limit=20 << 20, speed=30 << 20, spec=TO_NAS, store=NAS),
            "slowed to 20.0 MiB/s by store nas1 (60.0 MiB/s for all hosts)",
        ),
        (
            scene("running", claimed=True, limit=5 << 20, spec=TO_NAS, store=NAS,
                  hosts=[replace(host(), speed=9 << 20)]),
            "slowed to 5.0 MiB/s by host db1 (9.0 MiB/s for all its copies) and store nas1 (60.0 MiB/s for all hosts)",
        ),
    ],
    ids=["no-limit", "its-own-is-lower", "does-not-run", "store", "both"],
)  # fmt: skip
def test_a_copy_that_may_move_less_than_its_user_lets_it_says_who_slows_it(told, expected):
    assert reason_of_slowness(told) == expected
