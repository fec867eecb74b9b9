"""A job that failed is tried again within its run: under its id, from its beginning, as often as its file says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from puppets import ALPHA, BETA, RUN, dump, only_asks, spec

from blockjobs.client.event_stream import event_success
from blockjobs.daemons.deadlines import Deadlines
from blockjobs.model import errors
from blockjobs.model.barriers import AwaitTurn, Decision, Do, Retry, Step
from blockjobs.model.ids import LONGEST, RunId, TxnId
from blockjobs.model.policies import Policy, RunFields, Verdict, next_try
from blockjobs.model.runs import RunPlan
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress
from blockjobs.registry.history import keep_rules
from blockjobs.registry.views import JobPlace

pytestmark = pytest.mark.durable

JOB = spec(f"{RUN}.a", txn=f"{RUN}.each.a")
OTHER = spec(f"{RUN}.b", host=BETA, txn=f"{RUN}.each.b")
FIRST, SECOND, THIRD = (TxnId(f"{RUN}.each.a{end}") for end in ("", ".try2", ".try3"))


def plan(*, retry=2, wait=0, grouped=False, **fields):
    policies = {"each": Policy(grouped=grouped, retry=retry, retry_wait=wait)}
    return RunPlan(RunId(RUN), "nightly", grouped, ((JOB,), (OTHER,)), RunFields(policies=policies, **fields))


@pytest.fixture
def going(fleet):
    """A run of two jobs that are tried three times at the most, at once."""
    fleet.registry.submit.submit(plan())
    return fleet


def fail(fleet, txn, text="it broke"):
    """Its copy fails."""
    fleet.walk(txn, Step.RUN)
    fleet.finish(fleet.claim(JOB), errno=5, text=text)


def finish(fleet, txn, job=JOB):
    """Its copy succeeds, and all that comes behind it."""
    fleet.walk(txn, Step.RUN)
    fleet.copy(job)
    fleet.walk(txn)
    fleet.close(txn)


def begin(fleet):
    return fleet.registry.retries.begin(fleet.registry.clock.now())


def view(fleet):
    return fleet.registry.views.job(JOB.id)


# --- the next try -----------------------------------------------------------------------------------------


def test_a_job_that_failed_begins_anew_and_its_run_goes_on_as_if_it_had_not(going):
    before = going.registry.views.run(RUN)
    fail(going, FIRST)
    assert going.again(FIRST) == SECOND
    run, job = going.registry.views.run(RUN), view(going)
    assert (run.open, run.failed, run.bad, run.why, run.retried) == (before.open, 0, {}, "", 1)
    assert (job.status, job.tries, job.failed_with, job.error, job.ret) == ("created", 2, "it broke", "", 0)
    assert (job.transaction, job.spec.transaction, job.offset) == (SECOND, SECOND, 0)
    assert (job.spec.source, job.spec.target) == (JOB.source, JOB.target)


def test_what_commits_at_a_later_try_counts_as_committed(going, command):
    fail(going, FIRST)
    going.again(FIRST)
    begin(going)
    finish(going, SECOND)
    finish(going, OTHER.transaction, OTHER)
    run = going.registry.views.run(RUN)
    assert (run.open, run.failed, run.retried) == (0, 0, 1)
    assert going.registry.views.verdict(RUN) is Verdict.ALL
    assert command("wait", RUN, JOB.id)[0] == 0
    (told,) = [event for event in going.history() if event.name == "RUN_ENDED"]
    assert (told.fields["failed"], told.fields["retried"]) == ("0", "1")
    assert "    1 further try\n" in command("history")[1]


def test_the_last_try_that_fails_is_the_jobs_end_with_its_own_error(going, command):
    for txn in (FIRST, SECOND):
        fail(going, txn)
        going.again(txn)
        begin(going)
    fail(going, THIRD, "it broke for good")
    going.walk(THIRD)
    finish(going, OTHER.transaction, OTHER)
    run, job = going.registry.views.run(RUN), view(going)
    assert (run.failed, run.bad, run.why, run.retried) == (1, {"each": 1}, f"{JOB.id}: it broke for good", 2)
    assert (job.status, job.error, job.tries) == ("concluded", "it broke for good", 3)
    assert command("wait", RUN)[0] == 1


def test_a_group_and_a_file_that_says_nothing_are_not_tried_again(fleet):
    fleet.registry.submit.submit(plan(retry=0))
    fail(fleet, FIRST)
    fleet.walk(FIRST)
    assert fleet.registry.views.run(RUN).failed == 1


def test_the_next_try_waits_for_its_time_also_when_nobody_is_there_to_remember_it(fleet, command):
    fleet.registry.submit.submit(plan(wait=3600))
    fail(fleet, FIRST)
    fleet.again(FIRST)
    assert fleet.next(SECOND) == AwaitTurn()
    assert begin(fleet) == []
    assert "try 2 of 3 begins at " in command("show", JOB.id)[1]
    assert "; the last try failed: it broke\n" in command("show", JOB.id)[1]
    fleet.client.zadd(keys.retries(), {SECOND: 1})  # the hour is over
    Deadlines(fleet.registry).look(fleet.registry.clock.now())
    assert fleet.next(SECOND) == Do(Step.OPEN, frozenset({ALPHA}))
    assert begin(fleet) == []
    finish(fleet, SECOND)


def test_each_wait_is_twice_as_long_as_the_one_before(fleet):
    fleet.registry.submit.submit(plan(wait=60))
    delays = []
    for txn in (FIRST, SECOND):
        fail(fleet, txn)
        fleet.again(txn)
        fleet.client.zadd(keys.retries(), {next_try(txn, len(delays) + 2, LONGEST): 1})
        begin(fleet)
    delays = [event.fields["delay"] for event in fleet.history() if event.name == "JOB_RETRIED"]
    assert delays == ["60.000", "120.000"]


@pytest.mark.parametrize("step", [Step.OPEN, Step.CUT, Step.PREPARE])
def test_what_a_host_could_not_do_is_tried_again_as_well(going, step):
    going.sick[step, JOB.id] = (2, "not there")
    if step is Step.PREPARE:
        going.walk(FIRST, Step.RUN)
        going.copy(JOB)
    going.again(FIRST)
    del going.sick[step, JOB.id]
    begin(going)
    finish(going, SECOND)
    assert going.registry.views.run(RUN).failed == 0


def test_its_volumes_stay_its_own_and_its_id_too(going):
    fail(going, FIRST)
    going.again(FIRST)
    other = spec("x", run="other", txn="other", target=JOB.target)
    with pytest.raises(errors.VolumeBusy):
        going.submit(other)
    with pytest.raises(errors.JobExists):
        going.submit(spec(JOB.id, run="other", txn="other", target=other.source))


def test_an_attempt_of_the_try_before_is_a_stranger(going):
    going.walk(FIRST, Step.RUN)
    old = going.claim(JOB)
    going.finish(old, errno=5, text="it broke")
    going.again(FIRST)
    begin(going)
    going.walk(SECOND, Step.RUN)
    new = going.claim(JOB)
    assert new.token > old.token
    record = going.record(JOB)
    attempts = going.host(ALPHA).attempts
    with pytest.raises(errors.LeaseLost):
        attempts.checkpoint(old, Progress(5, 5))
    with pytest.raises(errors.LeaseLost):
        attempts.finish(old, Progress(5, 5), durable=None, result={}, errno=5, text="late")
    attempts.release(JOB.id, FIRST, old.token, old.attempt, why="dead")
    assert going.record(JOB) == record


def test_what_the_user_changed_meanwhile_is_the_jobs_and_what_the_try_left_is_not(going):
    going.walk(FIRST, Step.RUN)
    claim = going.claim(JOB)
    going.registry.verbs.set_speed(JOB.id, 4711)
    going.finish(claim, errno=5, text="it broke")
    going.again(FIRST)
    assert view(going).speed == 4711
    blank = {
        "status",
        "offset",
        "len",
        "attempt",
        "beat",
        "lost",
        "busy",
        "iostatus",
        "passed",
        "txn",
        "spec",
        "backup",
    }
    kept = {"host", "run", "type", "speed", "auto-finalize", "auto-dismiss", "source", "target", "created", "token"}
    assert set(going.record(JOB)) == blank | kept | {"attempts", "started", "try", "failed-with"}


def test_a_name_that_is_taken_is_passed_over(fleet):
    taken = spec(f"{RUN}.a.try2", txn=f"{RUN}.each.a.try2")
    policies = {"each": Policy(grouped=False, retry=2, retry_wait=0)}
    fleet.registry.submit.submit(
        RunPlan(RunId(RUN), "nightly", False, ((JOB,), (taken,)), RunFields(policies=policies))  # noqa: FBT003
    )
    fail(fleet, FIRST)
    assert fleet.again(FIRST) == THIRD
    assert fleet.registry.views.job(taken.id).transaction == taken.transaction


def test_the_stream_tells_it_without_a_gap_and_no_end_of_it_is_told_before_the_last(going):
    fail(going, FIRST)
    going.again(FIRST)
    begin(going)
    finish(going, SECOND)
    assert going.replayed()[JOB.id] == "concluded"
    ends = [event_success(event) for event in going.history() if event.id == JOB.id]
    assert [end for end in ends if end is not None] == [True]
    (told,) = [event for event in going.history() if event.name == "JOB_RETRIED"]
    assert told.fields | {"delay": ""} == {"try": "2", "of": "3", "delay": "", "error": "it broke"}


def test_of_a_try_that_is_over_nothing_is_left_and_of_a_run_that_is_forgotten_neither(going):
    empty = set(dump(going.client)) - {key for key in dump(going.client) if RUN in key}
    fail(going, FIRST)
    going.again(FIRST)
    assert not [key for key in dump(going.client) if key.endswith(FIRST)]
    begin(going)
    finish(going, SECOND)
    finish(going, OTHER.transaction, OTHER)
    going.registry.retention.forget(going.registry.hosts.now() + 1, keep_ms=0)
    left = {key for key in dump(going.client) if RUN in key}
    assert not left
    assert not {key for key in dump(going.client) if not only_asks(key)} - empty - {keys.decisions()}


def test_its_target_is_kept_for_history_as_that_of_any_other(fleet):
    policies = {"each": Policy(grouped=False, retry=1, retry_wait=0, keep={"last": 2})}
    fleet.registry.submit.submit(replace(plan(), fields=RunFields(policies=policies)))
    fail(fleet, FIRST)
    fleet.again(FIRST)
    begin(fleet)
    finish(fleet, SECOND)
    runs = [fleet.registry.views.run(RUN)]
    (target,) = fleet.registry.history.targets(runs)
    assert (target.job, target.group, target.transaction) == (JOB.id, "each", SECOND)
    assert keep_rules(runs, [target]) == {"each": {"last": 2}}


# --- who does not want it -------------------------------------------------------------------------------


def test_what_the_user_cancels_is_not_tried_again(going):
    going.walk(FIRST, Step.RUN)
    claim = going.claim(JOB)
    going.registry.verbs.cancel(JOB.id)
    going.finish(claim, errno=125, text="Operation canceled")
    going.walk(FIRST)
    assert going.registry.views.run(RUN).cancelled == 1


def test_a_cancel_takes_away_the_next_try_while_it_waits(going):
    fail(going, FIRST)
    going.again(FIRST)
    going.registry.verbs.cancel(JOB.id)
    going.walk(SECOND)
    assert (going.registry.views.run(RUN).cancelled, going.registry.views.run(RUN).open) == (1, 1)
    going.close(SECOND)
    assert not going.client.exists(keys.retries())
    assert view(going).status == "concluded"


@pytest.mark.parametrize("decided", [False, True])
def test_a_cancel_between_the_failure_and_the_next_try_lets_it_end_as_it_failed(going, command, decided):
    fail(going, FIRST)
    while decided and going.view(FIRST).decision is not Decision.ABORT:
        going.advance(FIRST)
    assert command("cancel", RUN)[0] == 0
    going.walk(FIRST)
    assert (view(going).status, view(going).error) == ("concluded", "it broke")
    assert going.registry.views.run(RUN).failed == 1
    assert command("cancel", JOB.id)[0] == 2


@pytest.mark.parametrize("when", ["failed", "waits"])
def test_the_deadline_of_its_run_is_the_end_of_all_tries(fleet, when):
    fleet.registry.submit.submit(plan(deadline=3600))
    fail(fleet, FIRST)
    txn = fleet.again(FIRST) if when == "waits" else FIRST
    fleet.client.zadd(keys.deadlines(), {RUN: 1})
    Deadlines(fleet.registry).look(fleet.registry.clock.now())
    fleet.walk(txn)
    fleet.walk(OTHER.transaction)
    assert view(fleet).error == ("it broke" if when == "failed" else "deadline of 1h passed")
    assert fleet.registry.views.run(RUN).open == 0


def test_a_deadline_reaches_a_job_that_is_tried_again_at_that_very_moment(fleet):
    """Places were read before the job got another one: it is looked for once more."""
    fleet.registry.submit.submit(plan(deadline=3600))
    fail(fleet, FIRST)
    assert fleet.walk(FIRST, Retry) == Retry()
    timeouts, call_off = fleet.registry.timeouts, fleet.registry.timeouts._call_off

    def late(places, why):
        timeouts._call_off = call_off
        fleet.registry.retries.retry(fleet.view(FIRST))
        return call_off(places, why)

    timeouts._call_off = late
    assert timeouts.call_off_run(RunId(RUN), "it is late") == 2
    fleet.walk(SECOND)
    assert view(fleet).error == "it is late"


def test_what_nobody_mended_in_time_is_not_tried_again(fleet):
    fleet.registry.submit.submit(plan(hold_timeout=60))
    fleet.walk(FIRST, Step.RUN)
    claim = fleet.claim(JOB)
    attempts = fleet.host(ALPHA).attempts
    attempts.error(claim, 1, operation="write", action="stop", io_status="nospace", text="No space", errno=28)
    attempts.checkpoint(claim, Progress(), quiet=True)
    fleet.client.hset(keys.job(ALPHA, JOB.id), "stopped-at", 1)
    fleet.client.zadd(keys.stopped(), {JOB.id: 1})
    assert fleet.registry.timeouts.waited(fleet.registry.clock.now()) == [JOB.id]
    fleet.finish(claim, errno=125, text="Operation canceled")
    fleet.walk(FIRST)
    assert view(fleet).error.startswith("No space; nobody resumed it")


def test_what_a_later_try_stops_for_is_noted_also_where_both_are_heard_of_at_once(fleet):
    fleet.registry.submit.submit(plan(hold_timeout=60))
    fail(fleet, FIRST)
    fleet.again(FIRST)
    begin(fleet)
    fleet.walk(SECOND, Step.RUN)
    attempts = fleet.host(ALPHA).attempts
    attempts.error(
        fleet.claim(JOB), 1, operation="write", action="stop", io_status="nospace", text="No space", errno=28
    )
    Deadlines(fleet.registry).heard(fleet.history())
    assert fleet.client.zscore(keys.stopped(), JOB.id)


def test_what_commits_is_not_tried_again_whoever_asks_for_it(going):
    going.walk(FIRST, Step.RUN)
    going.copy(JOB)
    going.walk(FIRST, Step.CONCLUDE)
    before = dump(going.client)
    going.registry.retries.retry(going.view(FIRST))
    assert dump(going.client) == before


def test_what_is_not_settled_or_was_cancelled_meanwhile_is_not_tried_again_by_whoever_saw_it_before(going):
    fail(going, FIRST)
    going.walk(FIRST, Step.SETTLE)
    before = dump(going.client)
    going.registry.retries.retry(going.view(FIRST))
    assert dump(going.client) == before, "it is not settled"
    going.walk(FIRST, Retry)
    view = going.view(FIRST)
    assert view.retry
    assert going.registry.verbs.cancel(JOB.id) == "aborting"
    before = dump(going.client)
    going.registry.retries.retry(view)
    assert dump(going.client) == before, "it was cancelled"


def test_the_time_of_a_next_try_comes_once_and_makes_it_due(going):
    fail(going, FIRST)
    going.again(FIRST)
    for due in going.due():
        going.registry.transactions.close(due, going.registry.transactions.view(due.txn), finished=False)
    assert begin(going) == [SECOND]
    assert SECOND in [due.txn for due in going.due()]
    going.client.zadd(keys.retries(), {SECOND: 1})  # as another coordinator read it
    assert begin(going) == []


def test_a_call_whose_reply_was_lost_is_known_in_the_next_try_as_well(going):
    verbs = going.registry.verbs

    def resume():
        names = [*verbs._job(going.registry.views.place(JOB.id)), keys.events(), keys.ready(ALPHA), keys.terms()]
        return verbs._scripts.call("resume", names, [JOB.id, "user", "the same call"])

    going.walk(FIRST, Step.RUN)
    verbs.pause(JOB.id)
    assert resume()[0] == b"lifted"
    fail(going, FIRST)
    going.again(FIRST)
    assert resume()[0] == b"lifted"


def test_a_host_is_given_up_with_the_try_that_it_has(going):
    fail(going, FIRST)
    going.walk(FIRST, Retry)
    members = going.client.lrange(keys.members(ALPHA, FIRST), 0, -1)
    going.again(FIRST)
    going.client.rpush(keys.members(ALPHA, FIRST), *members)  # what another one has read already
    going.client.zadd(keys.unfinished(), {FIRST: 1})
    assert going.registry.transactions.abandon(ALPHA) == 1
    assert not going.client.exists(keys.txn(FIRST), keys.tally(ALPHA, FIRST))
    assert going.view(SECOND).shares[ALPHA].owing[Step.SETTLE] == 0


def test_of_a_host_that_is_given_up_nothing_is_tried_again(going):
    going.walk(FIRST, Step.RUN)
    going.registry.transactions.abandon(ALPHA)
    going.walk(FIRST)
    assert (view(going).status, view(going).error) == ("concluded", "host alpha was abandoned")


# --- who comes late ---------------------------------------------------------------------------------------

LATE = {
    "answers": lambda fleet, _: [fleet.answer(ALPHA, FIRST, step) for step in ("open", "cut", "settle")],
    "an-open": lambda fleet, _: fleet.host(ALPHA).answers.answer(FIRST, "open", [fleet._said("open", JOB.id)]),
    "an-answer": lambda fleet, _: fleet.host(ALPHA).answers.answer(FIRST, "settle", [fleet._said("settle", JOB.id)]),
    "start": lambda fleet, old: fleet.registry.transactions.start(old, ALPHA),
    "fail": lambda fleet, old: fleet.registry.transactions.fail(old, ALPHA, "open", 110, "late"),
    "cancel": lambda fleet, _: fleet.registry.verbs._scripts.call("cancel", [
        keys.job(ALPHA, JOB.id), keys.tally(ALPHA, FIRST), keys.wake(ALPHA, JOB.id), keys.txn(FIRST), keys.events(),
        keys.ready(ALPHA), keys.rung(ALPHA), keys.due(), keys.due_wake(), keys.holds(ALPHA, JOB.id),
    ], [JOB.id, FIRST, "operation", 1]),
    "call-off": lambda fleet, _: fleet.registry.timeouts._call_off([JobPlace(ALPHA, JOB.id, FIRST)], "late"),
    "decide": lambda fleet, old: fleet.registry.transactions.settle(old, Decision.COMMIT, "late"),
    "again": lambda fleet, old: fleet.registry.retries.retry(old),
    "barrier": lambda fleet, _: fleet.registry.transactions.barrier(FIRST, "late"),
}  # fmt: skip


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_who_saw_the_try_before_changes_nothing_of_the_next_one(going, late):
    old = going.view(FIRST)
    fail(going, FIRST)
    going.walk(FIRST, Retry)
    members = going.client.lrange(keys.members(ALPHA, FIRST), 0, -1)
    going.again(FIRST)
    before = dump(going.client)
    going.client.rpush(keys.members(ALPHA, FIRST), *members)  # what it has read already
    late(going, old)
    going.client.delete(keys.members(ALPHA, FIRST))
    assert dump(going.client) == before


def test_what_holds_many_at_once_makes_nothing_of_a_transaction_that_is_gone(going):
    fail(going, FIRST)
    going.again(FIRST)
    going.registry.holds.begin("all:night")
    assert going.registry.holds.hold("all:night", places=[JobPlace(ALPHA, JOB.id, FIRST)]) == 1
    assert not going.client.exists(keys.txn(FIRST))
    assert "all:night" in view(going).holds


STEPS = {"pend": Step.PEND, "stop": Step.STOP, "conclude": Step.CONCLUDE}


@pytest.mark.parametrize("step", STEPS)
def test_a_finalizer_that_was_held_up_moves_nothing_of_the_next_try(going, step):
    """The same job stands where the step would take it, in another transaction."""
    old = going.view(FIRST)
    fail(going, FIRST)
    going.again(FIRST)
    begin(going)
    going.walk(SECOND, Step.RUN)
    if step == "pend":
        going.copy(JOB)
    if step == "conclude":
        going.registry.verbs.cancel(JOB.id)
        going.walk(SECOND, Step.CONCLUDE)
    before = dump(going.client)
    going.client.rpush(keys.members(ALPHA, FIRST), JOB.id)
    going.client.rpush(keys.order(FIRST), f"{ALPHA} {JOB.id}")
    fate = going.registry.transactions
    fate.conclude(old, frozenset({ALPHA})) if step == "conclude" else getattr(fate, step)(old, ALPHA)
    going.client.delete(keys.members(ALPHA, FIRST), keys.order(FIRST), keys.txn(FIRST))
    assert dump(going.client) == before
    assert isinstance(going.next(SECOND), Do)


def test_a_verb_finds_the_job_where_it_is_now(going):
    fail(going, FIRST)
    place = going.registry.views.place(JOB.id)
    going.again(FIRST)
    verbs = going.registry.verbs
    places = iter([place])
    known, verbs._views.place = verbs._views.place, lambda job: next(places, None) or known(job)
    assert verbs.cancel(JOB.id) == "aborting"
    going.walk(SECOND)
    assert going.registry.views.run(RUN).cancelled == 1
