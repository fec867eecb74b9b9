"""A board follows runs by their events alone, and asks only after what moves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from blockjobs.cli.board import Board, Rate, Row, seconds_to_end
from blockjobs.cli.follow import outcome_lines
from blockjobs.cli.live import draw_board, jobs_summary
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.states import Status
from blockjobs.registry.events import Event
from blockjobs.registry.glances import Glance
from blockjobs.registry.views import JobPlace, RunView

RUN = RunId("nightly-20261122T103000Z")
MIB = 1 << 20


def event(name, job="a", ms=1000, run=RUN, host="web1", **fields):
    own = run if name.startswith("RUN_") else f"{run}.{job}"
    return Event(f"{ms}-0", name, own, "", run, host, {key: str(value) for key, value in fields.items()})


def moves(job, *statuses):
    return [
        event("JOB_STATUS_CHANGE", job, **{"from": before, "status": after}) for before, after in pairwise(statuses)
    ]


def board_of(*jobs, **options):
    board = Board()
    rows = [Row(JobPlace(Host("web1"), JobId(f"{RUN}.{job}"), TxnId(RUN)), RUN, **options) for job in jobs]
    run = RunView(
        RUN, "nightly", grouped=True, published=1000, ended=0, jobs=len(jobs), open=len(jobs), failed=0, cancelled=0
    )
    board.add(run, rows)
    return board


def row(board, job="a"):
    return board.rows[JobId(f"{RUN}.{job}")]


def glance(offset):
    return Glance(Status.RUNNING, claimed=True, busy=True, offset=offset * MIB, len=100 * MIB, speed=0)


def feed(board, *events):
    for each in events:
        board.apply(each)


CLAIM = event("ATTEMPT_CLAIMED", attempt=1)
RUNNING = [*moves("a", "undefined", "created", "running"), CLAIM]
HELD = event("JOB_HELD", reason="user", cause="")
FAILED = event("BLOCK_JOB_COMPLETED", error="no such disk", offset=1, len=2)
AGAIN = [
    event("JOB_STATUS_CHANGE", **{"from": "aborting", "status": "concluded", "again": "1"}),
    *moves("a", "concluded", "null"), event("JOB_RETRIED", error="no such disk", delay="1.000", **{"try": 2, "of": 3}),
    *moves("a", "undefined", "created"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "word"),
    [
        ([], "created"),
        (RUNNING[:2], "queued"),
        (RUNNING, "running"),
        ([*RUNNING, HELD], "pausing"),
        ([*RUNNING, HELD, *moves("a", "running", "paused")], "paused"),
        ([*RUNNING, HELD, event("JOB_UNHELD", reason="user")], "running"),
        ([*RUNNING, event("ATTEMPT_RELEASED", reason="dead")], "queued"),
        ([*RUNNING, *moves("a", "running", "waiting")], "waiting"),
        ([*RUNNING, *moves("a", "running", "waiting", "pending", "concluded")], "done"),
        ([*RUNNING, *moves("a", "running", "aborting"), FAILED, *moves("a", "aborting", "concluded")], "failed"),
        ([*RUNNING, *moves("a", "running", "aborting", "concluded")], "cancelled"),
        ([*RUNNING, *moves("a", "running", "waiting", "pending", "concluded", "null")], "done"),
        ([*RUNNING, *moves("a", "running", "aborting"), FAILED, *AGAIN], "created"),
        ([*RUNNING, FAILED, *AGAIN, *moves("a", "created", "aborting", "concluded")], "cancelled"),
    ],
)  # fmt: skip
def test_a_job_is_called_what_it_does(events, word):
    board = board_of("a")
    feed(board, *events)
    assert row(board).word == word
    assert +board.runs[RUN].words == {word: 1}


def test_only_what_runs_or_changed_is_asked_after():
    board = board_of(*(f"j{n}" for n in range(1000)))
    feed(board, *moves("j1", "undefined", "created", "running"), event("ATTEMPT_CLAIMED", "j1", attempt=1))
    feed(board, *moves("j2", "created", "running"))
    assert {place.job for place in board.to_poll()} == {f"{RUN}.j1", f"{RUN}.j2"}
    board.polled({}, 1.0)
    assert [place.job for place in board.to_poll()] == [f"{RUN}.j1"]


def test_of_many_jobs_those_are_seen_that_run():
    board = board_of(*(f"j{n}" for n in range(100)))
    for n in (70, 30):
        feed(board, event("ATTEMPT_CLAIMED", f"j{n}", attempt=1), *moves(f"j{n}", "created", "running"))
    assert [each.name for each in board.visible(20)] == ["j70", "j30"]
    assert [each.name for each in board.visible(1)] == ["j70"]
    assert len(board.visible(100)) == 100
    assert jobs_summary(board.runs.values()) == "100 jobs: 2 running, 98 created"
    assert draw_board(board, 20, 80)


def test_the_sums_of_a_run_follow_its_jobs():
    board = board_of("a", "b")
    feed(board, *RUNNING)
    for now, offset in ((10.0, 10), (12.0, 30)):
        board.polled({row(board).place.job: glance(offset)}, now)
    tally = board.runs[RUN]
    assert (tally.offset, tally.len) == (30 * MIB, 100 * MIB)
    assert row(board).rate.value == tally.rate.value == 10 * MIB
    assert row(board).eta == 7


def test_events_of_others_are_not_ours_but_those_of_our_hosts_are():
    board = board_of("a")
    assert not board.apply(event("RUN_PUBLISHED", run=RunId("other-1"), jobs=1))
    assert not board.apply(Event("1-0", "HOST_DOWN", "db9", "", "", "db9", {"state": "down"}))
    assert board.apply(Event("1-0", "HOST_DOWN", "web1", "", "", "web1", {"state": "down"}))


@pytest.mark.parametrize(
    ("samples", "rate"),
    [([], 0), ([(0, 5)], 0), ([(0, 0), (2, 10)], 5), ([(0, 0), (1, 1000), (20, 1000), (22, 1010)], 5),
     ([(0, 1000), (1, 10), (2, 20)], 10)],
    ids=["nothing", "one", "two", "old-ones-are-forgotten", "a-new-attempt-began-earlier"],
)  # fmt: skip
def test_a_rate_is_of_the_last_seconds(samples, rate):
    measured = Rate()
    for now, offset in samples:
        measured.add(float(now), offset)
    assert measured.value == rate


def test_nobody_guesses_the_end_of_what_does_not_move():
    assert seconds_to_end(5, 10, 0) is None
    assert seconds_to_end(10, 10, 5) is None


def test_a_verdict_names_every_failure_and_why():
    board = board_of("a", "b")
    feed(board, *RUNNING, *moves("a", "running", "aborting"), FAILED, *moves("a", "aborting", "concluded"))
    feed(board, *moves("b", "created", "aborting", "concluded"))
    feed(board, event("RUN_ENDED", ms=13000, jobs=2, failed=1, cancelled=1))
    assert board.ended
    assert outcome_lines(board, RUN) == [
        f"run {RUN} aborted after 12 s: 0 done, 1 failed, 1 cancelled",
        f"  {RUN}.a failed: no such disk",
    ]


def test_a_verdict_of_success_is_one_line():
    board = board_of("a", status=Status.PENDING, len=MIB, offset=MIB)
    feed(board, *moves("a", "pending", "concluded"), event("RUN_ENDED", ms=76000, jobs=1, failed=0, cancelled=0))
    assert outcome_lines(board, RUN) == [f"run {RUN} committed: 1 job, 1.0 MiB in 1 min 15 s"]
