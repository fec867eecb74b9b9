"""Runs of one name: one at a time, refused, left out or queued; and what ends by the clock."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest
from puppets import ALPHA, RUN, dump, grouped, spec

from blockjobs.daemons.deadlines import Deadlines
from blockjobs.model import errors
from blockjobs.model.barriers import AwaitTurn, Decide, Decision, Step
from blockjobs.model.ids import RunId
from blockjobs.model.policies import RunFields, RunOutcome, Verdict, span_text
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress

FIRST, SECOND, THIRD = (RunId(f"nightly-2026112{n}T103000Z") for n in (2, 3, 4))


def plan(run, *names, host=ALPHA, on_overlap="refuse", **terms):
    jobs = [spec(f"{run}.{name}", host=host, run=run) for name in names or ("job",)]
    return replace(grouped(*jobs), fields=RunFields(on_overlap=on_overlap, **terms))


def job(run, name="job"):
    return spec(f"{run}.{name}", run=run)


@pytest.fixture
def going(fleet):
    """A run that copies."""
    fleet.registry.submit.submit(plan(FIRST))
    fleet.walk(FIRST, Step.RUN)
    return fleet


def end(fleet, run):
    fleet.copy(job(run))
    fleet.walk(run)


# --- on-overlap -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "code"), [("refuse", 2), ("skip", 0)])
def test_a_second_one_is_not_started_and_leaves_nothing(going, how, code):
    before = dump(going.client)
    with pytest.raises(errors.RunGoing, match=FIRST) as refused:
        going.registry.submit.submit(plan(SECOND, on_overlap=how))
    assert refused.value.exit_code == code
    assert dump(going.client) == before
    end(going, FIRST)
    going.registry.submit.submit(plan(SECOND, on_overlap=how))


def test_that_one_of_its_name_goes_on_is_said_and_not_which_volume_it_uses(going):
    same = replace(plan(SECOND), transactions=((spec("other", run=SECOND, target=job(FIRST).target),),))
    with pytest.raises(errors.RunGoing, match=FIRST):
        going.registry.submit.submit(same)


def test_others_of_its_name_that_no_file_describes_do_not_matter(going):
    going.registry.submit.submit(plan(SECOND, on_overlap=""))
    end(going, FIRST)
    going.registry.submit.submit(plan(THIRD))


@pytest.mark.parametrize("how", ["refuse", "skip", "queue"])
def test_of_many_that_start_at_the_same_moment_one_runs(fleet, how):
    runs = [RunId(f"nightly-20261122T1030{n:02}Z") for n in range(8)]
    gate, refused = threading.Barrier(len(runs)), []

    def start(run):
        gate.wait()
        try:
            fleet.registry.submit.submit(plan(run, on_overlap=how))
        except errors.RunGoing as going:
            refused.append(going)

    threads = [threading.Thread(target=start, args=[run]) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = [run.id for run in fleet.registry.views.runs()]
    assert len(published) == len(runs) - len(refused) == (8 if how == "queue" else 1)
    views = fleet.registry.views.runs()
    assert len([run for run in views if not run.queued and not run.replaced]) == 1
    assert len([run for run in views if run.queued]) == (how == "queue"), "exactly one waits"
    assert not fleet.client.exists(keys.staged())


def test_who_saw_the_line_before_launches_nobody_out_of_turn(going):
    going.registry.submit.submit(plan(SECOND, on_overlap="queue"))
    before = dump(going.client)
    assert going.registry.submit._advance(b"nightly", SECOND.encode()) is None
    assert dump(going.client) == before


def test_a_queued_run_waits_until_the_one_before_has_ended_and_then_runs(going):
    submit = going.registry.submit
    submit.submit(plan(SECOND, on_overlap="queue"))
    assert going.registry.views.run(SECOND).queued == FIRST
    assert going.status(f"{SECOND}.job") == "created"
    submit.recover(going.registry.hosts.now())  # as a coordinator does that has just started
    assert isinstance(going.next(SECOND), AwaitTurn)
    end(going, FIRST)
    assert submit.advance() == [SECOND]
    assert submit.advance() == []
    assert not going.registry.views.run(SECOND).queued
    going.walk(SECOND, Step.RUN)
    submit.submit(plan(THIRD, on_overlap="queue"))
    assert isinstance(going.next(THIRD), AwaitTurn)
    end(going, SECOND)
    assert submit.advance() == [THIRD]
    going.walk(THIRD, Step.RUN)
    end(going, THIRD)
    assert not going.client.exists(keys.lines())
    assert [id_ for _, id_ in going.events("RUN_LAUNCHED")] == [SECOND, THIRD]


def test_its_turn_makes_its_transactions_due_although_nobody_looks_at_them(going):
    submit = going.registry.submit
    submit.submit(plan(SECOND, on_overlap="queue"))
    going.close(SECOND)  # the finalizer has seen it, and rests
    assert [due.txn for due in going.due() if due.txn == SECOND] == []
    end(going, FIRST)
    submit.advance()
    assert [due.txn for due in going.due() if due.txn == SECOND] == [SECOND]


def test_a_queued_run_can_be_cancelled_and_the_next_one_waits_in_its_place(going):
    submit = going.registry.submit
    submit.submit(plan(SECOND, on_overlap="queue"))
    going.registry.verbs.cancel(f"{SECOND}.job")
    going.walk(SECOND)
    assert going.registry.views.run(SECOND).cancelled == 1
    submit.submit(plan(THIRD, on_overlap="queue"))
    assert not going.registry.views.run(SECOND).replaced, "it was over"
    assert submit.advance() == [], "the first one goes on"
    end(going, FIRST)
    assert submit.advance() == [THIRD]


@pytest.fixture
def skipped(going):
    """A run that waited while a later one was started; it has ended."""
    notify = {"partial": ("https://one.example.com",)}
    going.registry.submit.submit(plan(SECOND, "one", "two", on_overlap="queue", deadline=3600, notify=notify))
    going.registry.submit.submit(plan(THIRD, on_overlap="queue"))
    Deadlines(going.registry).look(going.registry.clock.now())
    going.walk(SECOND)
    return going


def test_the_newest_start_takes_the_place_of_the_run_that_waits(skipped):
    views = skipped.registry.views
    assert [views.run(run).queued for run in (SECOND, THIRD)] == ["", FIRST]
    second = views.run(SECOND)
    assert (second.replaced, second.outcome, views.verdict(SECOND)) == (THIRD, RunOutcome.SKIPPED, Verdict.PARTIAL)
    assert skipped.events("RUN_REPLACED", "RUN_LATE", "RUN_LAUNCHED") == [("RUN_REPLACED", SECOND)]
    assert not skipped.client.exists(keys.deadlines())
    end(skipped, FIRST)
    assert skipped.registry.submit.advance() == [THIRD]
    skipped.walk(THIRD, Step.RUN)


def test_nothing_of_a_run_that_was_replaced_begins_although_the_line_is_free_before_it_has_ended(going):
    submit = going.registry.submit
    submit.submit(plan(SECOND, on_overlap="queue"))
    submit.submit(plan(THIRD, on_overlap="queue"))
    end(going, FIRST)
    assert submit.advance() == [THIRD]
    assert isinstance(going.next(SECOND), AwaitTurn)
    Deadlines(going.registry).look(going.registry.clock.now())
    going.walk(SECOND)
    assert not going.record(job(SECOND)).get("started")
    assert going.registry.views.run(SECOND).outcome is RunOutcome.SKIPPED


def test_the_place_of_a_run_whose_turn_has_come_is_taken_by_nobody(going):
    submit = going.registry.submit
    submit.submit(plan(SECOND, on_overlap="queue"))
    end(going, FIRST)
    submit.submit(plan(THIRD, on_overlap="queue"))  # nobody has launched the second one yet
    assert not going.registry.views.run(SECOND).replaced
    assert submit.advance() == [SECOND]


def test_a_line_in_which_an_earlier_version_let_several_wait_keeps_the_newest_one(going):
    submit = going.registry.submit
    submit.submit(plan(SECOND, on_overlap="queue"))
    fourth = RunId("nightly-20261125T103000Z")
    submit.submit(plan(fourth, on_overlap=""))
    going.client.hset(keys.lines(), "nightly", f"{FIRST} {SECOND} {fourth}")
    submit.submit(plan(THIRD, on_overlap="queue"))
    assert [going.registry.views.run(run).replaced for run in (FIRST, SECOND, fourth)] == ["", THIRD, THIRD]
    assert going.client.hget(keys.lines(), "nightly").decode() == f"{FIRST} {THIRD}"


def test_a_run_that_was_replaced_before_its_client_launched_it_ends_as_well(going):
    second = plan(SECOND, on_overlap="queue")
    going.registry.submit.stage(second, second.jobs, "me")
    going.registry.submit.publish(SECOND, 1, second.name, second.fields)
    going.registry.submit.submit(plan(THIRD, on_overlap="queue"))
    Deadlines(going.registry).look(going.registry.clock.now())
    going.registry.submit.launch(SECOND)
    going.walk(SECOND)
    assert going.registry.views.run(SECOND).outcome is RunOutcome.SKIPPED


# --- deadlines --------------------------------------------------------------------------------------------


def test_past_its_deadline_a_run_is_cancelled_once_and_says_why(fleet):
    fleet.registry.submit.submit(plan(FIRST, "one", "two", "three", deadline=3600))
    fleet.walk(FIRST, Step.RUN)
    running = fleet.claim(job(FIRST, "one"))
    terms = Deadlines(fleet.registry)
    terms.look(fleet.registry.clock.now())
    assert not fleet.events("RUN_LATE")
    fleet.client.zadd(keys.deadlines(), {FIRST: 1})  # the hour is over
    terms.look(fleet.registry.clock.now())
    orders = fleet.host(ALPHA).attempts.checkpoint(running, Progress())
    assert orders.cancel
    fleet.client.zadd(keys.deadlines(), {FIRST: 1})  # its coordinator died before it was struck off
    Deadlines(fleet.registry).look(fleet.registry.clock.now())
    fleet.finish(running, errno=125, text="Operation canceled")
    fleet.walk(FIRST)
    assert len(fleet.events("RUN_LATE")) == 1
    assert len(fleet.events("JOB_CALLED_OFF")) == 3
    assert not fleet.client.exists(keys.deadlines())
    for name in ("one", "two", "three"):
        view = fleet.registry.views.job(f"{FIRST}.{name}")
        assert (view.ret, view.error, view.cancelled) == (-125, "deadline of 1h passed", True)
    cancelled = [e.fields["reason"] for e in fleet.history() if e.name == "BLOCK_JOB_CANCELLED"]
    assert cancelled == ["deadline of 1h passed"] * 3


def test_a_run_that_is_only_staged_or_has_ended_is_not_late(fleet):
    submit, late = fleet.registry.submit, fleet.registry.timeouts.call_off_run
    first = plan(FIRST)
    submit.stage(first, first.jobs, "me")
    assert late(FIRST, "too late") == 0
    submit.publish(FIRST, 1)
    submit.launch(FIRST)
    fleet.walk(FIRST, Step.RUN)
    end(fleet, FIRST)
    assert late(FIRST, "too late") == 0
    assert fleet.events("RUN_LATE") == []


def test_a_run_that_is_called_off_is_looked_at_and_not_decided_on_a_view_from_before(going):
    view = going.view(FIRST)
    for due in going.due():
        going.registry.transactions.close(due, view, finished=False)
    assert going.registry.timeouts.call_off_run(FIRST, "too late") == 1
    assert [due.txn for due in going.due()] == [FIRST]
    assert not going.registry.transactions.settle(view, Decision.COMMIT, "on what was true then")


def test_a_deadline_of_a_run_that_has_ended_is_forgotten_when_its_time_comes(going):
    end(going, FIRST)
    going.client.zadd(keys.deadlines(), {FIRST: 1})
    assert going.registry.timeouts.late(going.registry.clock.now()) == []
    assert not going.client.exists(keys.deadlines())


def test_one_that_was_stopped_a_moment_ago_is_not_given_up_for_a_note_of_long_ago(fleet):
    fleet.registry.submit.submit(plan(FIRST, hold_timeout=60))
    fleet.walk(FIRST, Step.RUN)
    attempts = fleet.host(ALPHA).attempts
    claim = fleet.claim(job(FIRST))
    attempts.error(claim, 1, operation="read", action="stop", io_status="failed", text="EIO")
    attempts.release(claim.spec.id, FIRST, claim.token, claim.attempt, why="parked")
    fleet.client.zadd(keys.stopped(), {claim.spec.id: 1})
    assert fleet.registry.timeouts.waited(fleet.registry.clock.now()) == []
    assert not fleet.registry.views.job(claim.spec.id).cancelled


def test_one_that_was_stopped_later_than_that_is_not_given_up(going):
    attempts = going.host(ALPHA).attempts
    attempts.error(going.claim(job(FIRST)), 1, operation="read", action="stop", io_status="failed", text="EIO")
    at, stopped = going.registry.views.place(f"{FIRST}.job"), int(going.record(job(FIRST))["stopped-at"])
    call_off = going.registry.timeouts._call_off
    assert [call_off([at], "late", stopped_before=stopped + ms).jobs for ms in (-1, 0)] == [0, 1]


def test_what_is_decided_or_over_is_left_alone(fleet):
    fleet.registry.submit.submit(plan(FIRST, deadline=1))
    fleet.walk(FIRST, Step.RUN)
    fleet.copy(job(FIRST))
    while not isinstance(fleet.advance(FIRST), Decide):
        pass
    fleet.client.zadd(keys.deadlines(), {FIRST: 1})
    Deadlines(fleet.registry).look(fleet.registry.clock.now())
    assert fleet.view(FIRST).decision is Decision.COMMIT
    fleet.walk(FIRST)
    assert fleet.registry.views.job(f"{FIRST}.job").ret == 0
    assert not fleet.events("JOB_CALLED_OFF")


def test_a_queued_run_has_its_deadline_too(going):
    going.registry.submit.submit(plan(SECOND, on_overlap="queue", deadline=1))
    going.client.zadd(keys.deadlines(), {SECOND: 1})
    Deadlines(going.registry).look(going.registry.clock.now())
    going.walk(SECOND)
    assert going.registry.views.run(SECOND).cancelled == 1


def test_the_deadline_of_a_run_that_has_ended_is_forgotten_at_once(fleet):
    fleet.registry.submit.submit(plan(FIRST, "one", deadline=6 * 3600))
    fleet.registry.submit.submit(plan(SECOND, "two", deadline=6 * 3600, on_overlap="queue"))
    terms = Deadlines(fleet.registry)
    fleet.registry.verbs.cancel(job(FIRST, "one").id)
    fleet.walk(FIRST)
    terms.heard(fleet.history())
    assert [name.decode() for name in fleet.client.zrange(keys.deadlines(), 0, -1)] == [SECOND], "which goes on"


# --- hold-timeout -----------------------------------------------------------------------------------------


@pytest.fixture
def stopped(fleet):
    """A job that an error stopped, in a run that waits half an hour; and that is over."""
    fleet.registry.submit.submit(plan(FIRST, hold_timeout=1800))
    fleet.walk(FIRST, Step.RUN)
    claim = fleet.claim(job(FIRST))
    stop(fleet, claim)
    return fleet, claim


JUDGED = itertools.count(1)  # errors of attempts, one number each


def stop(fleet, claim):
    fleet.host(ALPHA).attempts.error(
        claim,
        next(JUDGED),
        operation="write",
        action="stop",
        io_status="nospace",
        text="No space left on device",
        errno=28,
    )
    fleet.host(ALPHA).attempts.checkpoint(claim, Progress(), quiet=True)
    fleet.hear = Deadlines(fleet.registry)
    fleet.hear.heard(fleet.history())


def later(fleet, seconds=3600):
    """Time passes."""
    record = keys.job(ALPHA, job(FIRST).id)
    if fleet.client.hexists(record, "stopped-at"):
        fleet.client.hincrby(record, "stopped-at", -1000 * seconds)
    for name, _ in fleet.client.zrange(keys.stopped(), 0, -1, withscores=True):
        fleet.client.zincrby(keys.stopped(), -1000 * seconds, name)
    Deadlines(fleet.registry).look(fleet.registry.clock.now())


WHY = "No space left on device; nobody resumed it for 30m"


def test_a_job_that_is_over_is_no_longer_noted_as_stopped(stopped):
    fleet, claim = stopped
    assert fleet.client.zcard(keys.stopped()) == 1
    fleet.registry.verbs.cancel(claim.spec.id)
    fleet.finish(claim, errno=125, text="Operation canceled")
    fleet.walk(FIRST)
    fleet.hear.heard(fleet.history())
    assert not fleet.client.exists(keys.stopped())


@pytest.mark.parametrize("parked", [False, True])
def test_a_job_that_an_error_stopped_and_nobody_resumed_fails_with_its_errno(stopped, parked):
    fleet, claim = stopped
    attempts = fleet.host(ALPHA).attempts
    if parked:
        attempts.release(claim.spec.id, claim.spec.transaction, claim.token, claim.attempt, why="parked")
    Deadlines(fleet.registry).look(fleet.registry.clock.now())
    assert fleet.status(claim.spec.id) == "paused", "not before its time"
    later(fleet)
    if not parked:
        assert attempts.checkpoint(claim, Progress()).cancel
        fleet.finish(claim, errno=125, text="Operation canceled")
    fleet.walk(FIRST)
    view = fleet.registry.views.job(claim.spec.id)
    assert (view.ret, view.error) == (-28, WHY)
    assert fleet.registry.views.run(FIRST).failed == 1
    (told,) = [event for event in fleet.history() if event.name == "BLOCK_JOB_COMPLETED"]
    assert told.fields["error"] == WHY
    assert not fleet.client.exists(keys.stopped())


def test_one_that_was_resumed_and_paused_by_a_user_is_his(stopped):
    fleet, claim = stopped
    fleet.registry.verbs.resume(claim.spec.id)
    fleet.registry.verbs.pause(claim.spec.id, owner="op", cause="looks at the disk")
    later(fleet)
    assert not fleet.events("JOB_CALLED_OFF")
    assert not fleet.client.exists(keys.stopped())


def test_one_that_is_stopped_again_waits_anew(stopped):
    fleet, claim = stopped
    later(fleet, 1000)
    fleet.registry.verbs.resume(claim.spec.id)
    stop(fleet, claim)
    later(fleet, 1000)
    assert not fleet.events("JOB_CALLED_OFF")
    later(fleet, 1000)
    assert fleet.events("JOB_CALLED_OFF")


def test_where_somebody_else_holds_it_too_it_waits_for_him(stopped):
    fleet, _ = stopped
    holds = fleet.registry.holds
    holds.begin("drain:alpha", owner="op")
    holds.hold("drain:alpha")
    later(fleet)
    assert not fleet.events("JOB_CALLED_OFF")
    holds.lift("drain:alpha")
    later(fleet, 2)
    assert fleet.events("JOB_CALLED_OFF")


def test_a_run_that_says_nothing_of_it_waits_for_ever(fleet):
    fleet.submit(spec("a"))
    fleet.walk(RUN, Step.RUN)
    stop(fleet, fleet.claim(spec("a")))
    assert not fleet.client.exists(keys.stopped())


@pytest.mark.parametrize(
    ("seconds", "text"), [(21600, "6h"), (5400, "1h30m"), (90, "1m30s"), (86401, "1d1s"), (0, "0s")]
)
def test_a_time_is_said_as_it_is_written(seconds, text):
    assert span_text(seconds) == text
