"""What needs a person, from one look: each cause at its time and not before, under a name that stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blockjobs.model.attention import (
    Cause,
    JobSeen,
    LineSeen,
    NoticeSeen,
    RunSeen,
    Thresholds,
    TransactionSeen,
    fresh_needs,
    needs_of,
)
from blockjobs.model.barriers import Step
from blockjobs.model.notices import NEEDS, attention_body, notice_text, notice_title
from blockjobs.model.states import Status

NOW, MINUTE = 1_795_343_400_000, 60_000
LIMITS = Thresholds()
JOB = JobSeen(id="r.a", host="web1", transaction="r", status=Status.PAUSED)
HELD = replace(JOB, held=NOW - 30 * MINUTE, holds={"user": "looks at the disk"})
STOPPED = replace(JOB, stopped=NOW, stopped_by="No space left on device", holds={"user": "No space left on device"})
OWES = TransactionSeen(
    id="r", step=Step.SETTLE, decision="commit", since=NOW - 10 * MINUTE, owing={"web1": 2, "web2": 1}
)
LONE = replace(OWES, owing={"web1": 1})
LINE = LineSeen(host="web1", waiting=3, free=1, slots=2, since=NOW - 15 * MINUTE)
STANDS = "3 jobs wait for a slot on host web1, 1 of 2 slots are free, and none began for 15m"
STANDS_STILL = "an error stopped job r.a on host web1: No space left on device; blockjobs resume r.a"
GIVEN_UP = "the notification 'failure' of run r was not sent to https://h/***, given up after 5 tries: HTTP 503"
NOTICE = NoticeSeen(number=0, outcome="failure", url="https://h/***", tries=5, error="HTTP 503")


def seen(**what):
    return RunSeen(id="r", now=NOW, **what)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (seen(jobs=[STOPPED]), [STANDS_STILL]),
        (seen(jobs=[HELD]), ["job r.a on host web1 is held by user for 30m: looks at the disk"]),
        (seen(jobs=[replace(HELD, held=HELD.held + 1)]), []),
        (seen(jobs=[replace(HELD, held=0)]), []),
        (seen(jobs=[replace(HELD, status=Status.ABORTING)]), []),
        (seen(transactions=[OWES]), [f"host web{n} owes SETTLE of transaction r for 10m" for n in (1, 2)]),
        (seen(transactions=[replace(OWES, since=OWES.since + 1)]), []),
        (seen(transactions=[replace(OWES, step=Step.RUN)]), []),
        (seen(transactions=[replace(OWES, since=0)]), []),
        (seen(lines=[LINE]), [STANDS]),
        (seen(lines=[replace(LINE, why="the host is down")]), [f"{STANDS}: the host is down"]),
        (seen(lines=[replace(LINE, since=LINE.since + 1)]), []),
        (seen(lines=[replace(LINE, since=0)]), []),
        (seen(notices=[NOTICE]), [GIVEN_UP]),
    ],
    ids=["stopped", "held", "held-for-less", "nobody-knows-since-when", "held-and-aborting", "two-hosts-owe",
         "owed-for-less", "copies-run", "owed-nobody-knows-since-when", "line", "line-of-a-host-that-is-down",
         "line-for-less", "line-that-moves", "notice"],
)  # fmt: skip
def test_each_cause_is_told_at_its_time_and_not_before(run, told):
    assert [need.text for need in needs_of(run, LIMITS)] == told


@pytest.mark.parametrize(
    ("decision", "unsettled", "cause", "told"),
    [
        (
            "commit",
            "File exists",
            Cause.UNPUBLISHED,
            "job r.a is committed, not published: File exists; blockjobs resolve r.a",
        ),
        ("abort", "Input/output error", Cause.UNCLEANED, "job r.a is aborted, not cleaned up: Input/output error"),
        (
            "commit",
            "the cut of /x: EBUSY",
            Cause.UNCLEANED,
            "job r.a is committed, not cleaned up: the cut of /x: EBUSY",
        ),
    ],
    ids=["committed", "aborted", "its-cut"],
)
def test_what_cannot_be_settled_is_told_at_once_and_its_host_owes_nothing(decision, unsettled, cause, told):
    job = replace(JOB, unsettled=unsettled)
    txn = replace(OWES, decision=decision, owing={"web1": 1})
    (need,) = needs_of(seen(jobs=[job], transactions=[txn]), LIMITS)
    assert (need.cause, need.text) == (cause, told)
    (_, owes) = needs_of(seen(jobs=[job], transactions=[replace(txn, owing={"web1": 2})]), LIMITS)
    assert owes.cause is Cause.OWES, "another member of that host is not answered for"


def test_what_holds_many_jobs_is_told_once_however_many_they_are():
    jobs = [replace(HELD, id=f"r.{n}", holds={"drain:web1": "new disks"}) for n in range(500)]
    many = {"drain:web1": 7}
    (need,) = needs_of(seen(jobs=jobs, many=many), LIMITS)
    assert (need.subject, need.text) == ("drain:web1", "500 jobs are held by drain:web1 for 30m: new disks")
    (fewer,) = needs_of(seen(jobs=jobs[7:], many=many), LIMITS)
    assert fresh_needs([fewer], {need.name: need.mark}) == []


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (seen(jobs=[STOPPED]), seen(jobs=[replace(STOPPED, stopped=NOW + 1)])),
        (seen(jobs=[HELD]), seen(jobs=[replace(HELD, held=HELD.held - 1)])),
        (seen(transactions=[LONE]), seen(transactions=[replace(LONE, since=1)])),
        (seen(lines=[LINE]), seen(lines=[replace(LINE, since=LINE.since - 1)])),
    ],
    ids=["stopped-again", "held-again", "owes-another-step", "line-stands-again"],
)  # fmt: skip
def test_the_same_episode_is_the_same_at_every_look_and_the_next_one_is_another(first, later):
    (need,) = needs_of(first, LIMITS)
    told = {need.name: need.mark}
    assert fresh_needs(needs_of(replace(first, now=NOW + 90 * MINUTE), LIMITS), told) == []
    assert [each.name for each in fresh_needs(needs_of(later, LIMITS), told)] == [need.name]


def test_the_message_has_the_first_of_many_and_says_how_many_more_there_are():
    needs = needs_of(seen(jobs=[replace(STOPPED, id=f"r.{n}") for n in range(NEEDS + 3)]), LIMITS)
    said = attention_body("r/0", "nightly", [need.to_json(1000) for need in needs], run="r")
    assert (said["verdict"], len(said["needs"]), said["more"], said["run"]) == ("attention", NEEDS, 3, "r")
    assert said["needs"][0] == {
        "cause": "stopped", "subject": "r.0", "host": "web1", "since": NOW / 1000 + 1,
        "text": "an error stopped job r.0 on host web1: No space left on device; blockjobs resume r.0",
    }  # fmt: skip
    assert notice_title(said).startswith("blockjobs: nightly needs attention: an error stopped job r.0")
    assert notice_text(said).splitlines()[0] == "run r"
    assert notice_text(said).endswith("and 3 more: blockjobs show r")
