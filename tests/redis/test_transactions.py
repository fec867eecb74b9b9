"""All or nothing: what a group does when it commits, when a member fails or is cancelled, and whoever asks twice."""

from __future__ import annotations

import pytest
from puppets import ALPHA, BETA, RUN, Fleet, dump, only_asks, spec

from blockjobs.model import errors
from blockjobs.model.barriers import AwaitUser, Decision, Do, Finished, Step
from blockjobs.model.ids import JobId
from blockjobs.model.room import backup_series
from blockjobs.registry import keys
from blockjobs.registry.answers import Answer
from blockjobs.registry.codec import unpack_value
from blockjobs.registry.sizes import forget_sizes

TERMINAL = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")
A, B, C = spec("a"), spec("b", host=BETA), spec("c")
GROUP = (A, B, C)


@pytest.fixture
def running(fleet):
    """A group that waits for its copies."""
    fleet.submit(*GROUP)
    fleet.walk(RUN, Step.RUN)
    return fleet


def ends(fleet):
    return {job.id: fleet.registry.views.job(job.id) for job in GROUP}


def locks(fleet):
    return [fleet.client.hgetall(key) for key in (keys.texts(), keys.locks(ALPHA), keys.locks(BETA))]


# --- commit ---------------------------------------------------------------------------------------------


def test_a_group_commits_when_every_member_is_prepared(running):
    running.copy(A, C)
    assert running.next(RUN) == Do(Step.RUN, frozenset({BETA}))  # nobody goes on while one is copying
    running.copy(B)
    running.walk(RUN)
    assert running.view(RUN).decision is Decision.COMMIT
    assert running.events(*TERMINAL) == [("BLOCK_JOB_COMPLETED", job) for job in "cba"]  # newest first
    assert {str(view.status) for view in ends(running).values()} == {"concluded"}
    assert {view.error for view in ends(running).values()} == {""}
    run = running.registry.views.run(RUN)
    assert (run.jobs, run.open, run.failed, run.cancelled) == (3, 0, 0, 0)
    assert running.events("RUN_ENDED") == [("RUN_ENDED", RUN)]


@pytest.mark.parametrize("manual", [A, C], ids=["first", "last"])
def test_one_member_without_auto_finalize_makes_all_wait_for_the_user_and_any_may_speak_for_all(fleet, manual):
    jobs = [spec(j.id, host=j.host, auto_finalize=j is not manual) for j in GROUP]
    fleet.submit(*jobs)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*jobs)
    assert isinstance(fleet.walk(RUN, AwaitUser), AwaitUser)
    assert fleet.events("BLOCK_JOB_PENDING") == [("BLOCK_JOB_PENDING", manual.id)]
    fleet.registry.verbs.finalize("b")
    assert fleet.next(RUN).step is Step.PREPARE
    fleet.walk(RUN)
    assert fleet.view(RUN).decision is Decision.COMMIT


def test_nothing_is_finalized_before_everybody_is_pending(fleet):
    jobs = spec("a", auto_finalize=False), spec("b")
    fleet.submit(*jobs)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(jobs[0])
    with pytest.raises(errors.VerbRefused):
        fleet.registry.verbs.finalize("a")


def test_the_last_member_frees_what_the_run_had_taken(running):
    assert all(locks(running))
    running.copy(*GROUP)
    running.walk(RUN)
    assert locks(running) == [{}, {}, {}]
    with pytest.raises(errors.JobExists):  # the record stays until it is dismissed
        running.submit(spec("a", run="again-20261122T000000Z"))
    for job in GROUP:
        running.registry.verbs.dismiss(job.id)
        with pytest.raises(errors.NoSuchJob):
            running.registry.views.job(job.id)
    assert running.client.hgetall(keys.ids()) == {}
    running.submit(spec("a", run="again-20261122T000000Z"))


def test_an_auto_dismissed_job_is_gone_with_its_end(fleet):
    job = spec("a", auto_dismiss=True)
    fleet.submit(job)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(job)
    fleet.walk(RUN)
    assert not fleet.client.exists(keys.job(job.host, job.id), keys.ids())
    assert fleet.registry.views.run(RUN).open == 0
    assert fleet.replayed() == {}


# --- abort ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", GROUP, ids=lambda job: job.id)
@pytest.mark.parametrize("others", ["queued", "copying", "done"])
def test_a_member_that_fails_keeps_its_error_and_every_other_one_reports_cancelled(running, failing, others):
    rest = [job for job in GROUP if job is not failing]
    claims = [running.claim(job) for job in rest] if others != "queued" else []
    if others == "done":
        for claim in claims:
            running.finish(claim)
    running.finish(running.claim(failing), errno=5, text="Input/output error at 90 %")
    running.walk(RUN, Step.SETTLE)
    if others == "copying":
        for claim in claims:  # what an attempt says that did not see the cancel in time
            running.finish(claim)
    running.walk(RUN)
    assert running.view(RUN).decision is Decision.ABORT
    for job, view in ends(running).items():
        expected = (-5, "Input/output error at 90 %") if job == failing.id else (-125, "Operation canceled")
        assert (view.ret, view.error) == expected
    assert running.events(*TERMINAL) == [
        ("BLOCK_JOB_COMPLETED", job.id) if job is failing else ("BLOCK_JOB_CANCELLED", job.id)
        for job in reversed(GROUP)
    ]
    run = running.registry.views.run(RUN)
    assert (run.failed, run.cancelled, run.open) == (1, 2, 0)
    assert locks(running) == [{}, {}, {}]


@pytest.mark.parametrize("step", [Step.OPEN, Step.CUT, Step.PREPARE])
def test_a_step_that_fails_on_one_host_aborts_all(fleet, step):
    fleet.sick = {(step, "b"): (28, "host beta: no space")}
    fleet.submit(*GROUP)
    if step is Step.PREPARE:
        fleet.walk(RUN, Step.RUN)
        fleet.copy(*GROUP)
    fleet.walk(RUN)
    assert fleet.view(RUN).decision is Decision.ABORT
    assert {job: view.error for job, view in ends(fleet).items()} == {
        "a": "Operation canceled", "b": "host beta: no space", "c": "Operation canceled",
    }  # fmt: skip
    begun = step is Step.PREPARE  # as in QEMU: a cancelled job that never left "created" has no terminal event
    assert bool(fleet.events("BLOCK_JOB_CANCELLED")) is begun
    assert locks(fleet) == [{}, {}, {}]


def test_a_volume_that_another_job_holds_under_another_name_fails_the_open(fleet):
    fleet.submit(A)
    fleet.walk(RUN, Step.RUN)
    other = spec("x", run="other-20261122T000000Z")
    txn = fleet.submit(other)
    fleet.host(ALPHA).answers.answer(txn, Step.OPEN, [Answer(other.id, writes="w-a")])
    fleet.walk(txn)
    assert fleet.registry.views.job("x").error == "the volume is in use by job 'a' under another name"
    assert fleet.client.hget(keys.locks(ALPHA), "w:w-a") == b"a"  # and it is still his


def test_a_settle_that_fails_is_shown_once_and_owed_until_it_is_done(running):
    running.copy(*GROUP)
    running.walk(RUN, Step.SETTLE)
    running.sick = {(Step.SETTLE, "b"): (17, "somebody took the name")}
    for _ in range(3):
        running.advance(RUN)
    assert running.events("JOB_UNSETTLED") == [("JOB_UNSETTLED", "b")]
    assert running.registry.views.job("b").unsettled == "somebody took the name"
    assert running.next(RUN) == Do(Step.SETTLE, frozenset({BETA}))
    running.sick = {}
    running.walk(RUN)
    assert (ends(running)["b"].status, ends(running)["b"].unsettled) == ("concluded", "")


def test_an_abort_that_leaves_a_target_undefined_says_so_once_and_on_the_job(running):
    claim = running.claim(GROUP[1])
    running.finish(claim, 5, "its disk is gone")
    running.copy(GROUP[0], *GROUP[2:])
    running.sick = {(Step.SETTLE, "b"): (0, "half of it is written")}
    running.walk(RUN)
    running.answer(BETA, RUN, Step.SETTLE)
    assert running.events("TARGET_UNDEFINED", "JOB_UNSETTLED", "JOB_WARNING") == [("TARGET_UNDEFINED", "b")]
    assert {job.id: job.undefined for job in ends(running).values() if job.undefined} == {"b": "half of it is written"}


def test_warnings_of_an_open_and_of_a_prepare_are_told_once_and_kept_on_the_job(fleet):
    fleet.submit(*GROUP)
    fleet.sick = {(Step.OPEN, "b"): (0, "no estimate\nnor room"), (Step.PREPARE, "b"): (0, "no owner")}
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*GROUP)
    fleet.walk(RUN)
    assert fleet.events("JOB_WARNING") == [("JOB_WARNING", "b")] * 3
    told = {job.id: job.warnings for job in ends(fleet).values() if job.warnings}
    assert told == {"b": ("no estimate", "nor room", "no owner")}
    assert ends(fleet)["b"].to_json()["warnings"] == ["no estimate", "nor room", "no owner"]
    assert ends(fleet)["b"].status == "concluded"


def test_the_needs_of_opened_members_are_added_up_once_by_file_system(fleet):
    txn = fleet.submit(*GROUP)
    answers = fleet.host(ALPHA).answers
    mine = [member.spec for member in answers.members(txn)]
    assert len(mine) > 1
    said = [Answer(spec.id, result={"size": 1, "need": [66, 5 << 50]}, writes=f"w-{spec.id}") for spec in mine]
    for _ in range(2):
        answers.answer(txn, Step.OPEN, said)
    assert answers.needs(txn) == {66: len(mine) * (5 << 50)}


@pytest.mark.parametrize("commits", [True, False])
def test_what_a_backup_takes_up_is_noted_when_it_settles_by_a_commit(fleet, commits):
    txn = fleet.submit(*GROUP)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*GROUP)
    fleet.walk(RUN, Step.PREPARE)
    answers = fleet.host(ALPHA).answers
    (first, *_) = [member.spec for member in answers.members(txn)]
    answers.answer(txn, Step.PREPARE, [Answer(first.id, result={"series": backup_series(first), "bytes": 5 << 50})])
    assert answers.last_sizes([first]) == {}
    if not commits:
        fleet.sick = {(Step.PREPARE, "b"): (5, "its disk is gone")}
    fleet.walk(RUN)
    assert answers.last_sizes([first]) == ({first.id: 5 << 50} if commits else {})
    assert forget_sizes(fleet.client, ALPHA, round(answers.now() * 1000)) == 0
    assert forget_sizes(fleet.client, ALPHA, round(answers.now() * 1000) + 91 * 86_400_000) == int(commits)
    assert answers.last_sizes([first]) == {}


def test_a_silent_host_keeps_only_its_own_members(running):
    running.copy(*GROUP)
    running.walk(RUN, Step.SETTLE)
    running.silent = frozenset({BETA})
    while running.next(RUN) != Do(Step.SETTLE, frozenset({BETA})):
        running.advance(RUN)
    assert {job: str(view.status) for job, view in ends(running).items()} == {
        "a": "concluded", "b": "pending", "c": "concluded",
    }  # fmt: skip
    assert running.registry.views.run(RUN).open == 1
    running.silent = frozenset()
    running.walk(RUN)
    assert ends(running)["b"].status == "concluded"


def test_a_host_that_misses_a_barrier_fails_its_members_by_name(fleet):
    fleet.submit(*GROUP)
    fleet.answer(ALPHA, RUN, Step.OPEN)
    fleet.registry.transactions.fail(fleet.view(RUN), BETA, Step.OPEN, 110, "host beta did not answer OPEN")
    fleet.answer(BETA, RUN, Step.OPEN)  # too late
    fleet.walk(RUN)
    assert ends(fleet)["b"].error == "host beta did not answer OPEN"
    assert fleet.client.hgetall(keys.locks(BETA)) == {}
    before = dump(fleet.client)
    fleet.registry.transactions.fail(fleet.view(RUN), ALPHA, Step.OPEN, 110, "and this is later than the decision")
    assert dump(fleet.client) == before


# --- cancel ---------------------------------------------------------------------------------------------


def created(fleet):
    pass


def queued(fleet):
    fleet.walk(RUN, Step.RUN)


def copying(fleet):
    queued(fleet)
    return fleet.claim(A)


def paused(fleet):
    queued(fleet)
    fleet.registry.verbs.pause("a")


def stopped(fleet):
    claim = copying(fleet)
    attempts = fleet.host(ALPHA).attempts
    attempts.error(claim, 1, operation="write", action="stop", io_status="nospace", text="full")
    return claim


def waiting(fleet):
    queued(fleet)
    fleet.copy(A)


def pending(fleet):
    waiting(fleet)
    fleet.copy(B, C)
    fleet.walk(RUN, Step.PREPARE)


def prepared(fleet):
    pending(fleet)
    fleet.advance(RUN)


@pytest.mark.parametrize("state", [created, queued, copying, paused, stopped, waiting, pending, prepared])
def test_cancel_ends_a_job_in_every_state_before_the_decision_and_its_group_with_it(fleet, state):
    fleet.submit(*GROUP)
    claim = state(fleet)
    fleet.registry.verbs.cancel("a")
    if claim:
        assert fleet.status("a") == "running"
        fleet.registry.verbs.cancel("a")  # twice is harmless
        fleet.finish(claim)
    assert fleet.status("a") == "aborting"
    with pytest.raises(errors.VerbRefused):
        fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    for view in ends(fleet).values():
        assert (view.status, view.ret, view.error, view.io_status) == ("concluded", -125, "Operation canceled", "ok")
    assert fleet.registry.views.run(RUN).cancelled == 3
    with pytest.raises(errors.VerbRefused, match="'a' in state 'concluded'"):
        fleet.registry.verbs.cancel("a")


@pytest.mark.parametrize("verb", ["cancel", "pause", "set_speed", "finalize"])
def test_a_decision_on_a_view_older_than_a_verb_is_refused(fleet, verb):
    """A cancel that was answered OK must not be followed by a commit."""
    jobs = [spec("a", auto_finalize=verb != "finalize"), spec("b")]
    fleet.submit(*jobs)
    view = fleet.view(RUN)
    if verb == "cancel":
        fleet.walk(RUN, Step.RUN)
        fleet.copy(*jobs)
        fleet.walk(RUN, Step.PREPARE)
        fleet.advance(RUN)
        view = fleet.view(RUN)
        assert fleet.next(RUN).decision is Decision.COMMIT
    if verb == "finalize":
        fleet.walk(RUN, Step.RUN)
        fleet.copy(*jobs)
        fleet.walk(RUN, AwaitUser)
        view = fleet.view(RUN)
    getattr(fleet.registry.verbs, verb)("a", *([1] if verb == "set_speed" else []))
    assert not fleet.registry.transactions.settle(view, Decision.COMMIT, "on what was true then")
    assert fleet.view(RUN).decision is None
    assert not fleet.client.exists(keys.decisions())
    if verb == "cancel":
        fleet.walk(RUN)
        assert fleet.view(RUN).decision is Decision.ABORT


def test_a_decision_is_written_once_and_takes_the_next_number(running):
    other = spec("x", run="other-20261122T000000Z")
    running.submit(other)
    for number, txn in enumerate((RUN, other.transaction), 1):
        view = running.view(txn)
        assert running.registry.transactions.settle(view, Decision.ABORT, "first")
        assert running.registry.transactions.settle(
            view, Decision.COMMIT, "second"
        )  # it is decided: that is all it says
        assert (running.view(txn).decision, running.view(txn).number) == (Decision.ABORT, number)
    assert len(running.events("TRANSACTION_DECIDED")) == 2
    assert running.host(ALPHA).answers.decision(RUN) == ("abort", 1, "")


# --- again ----------------------------------------------------------------------------------------------


def seen(client):
    """The key space, less what only counts that somebody asked."""
    rest = {name: value for name, value in dump(client).items() if not only_asks(name)}
    for key, value in rest.items():
        if ":job:" in key:
            value.pop(b"beat", None)
    return rest


@pytest.mark.parametrize("fate", Decision)
def test_every_step_done_a_second_time_on_the_same_view_changes_nothing(fleet, fate):
    fleet.submit(*GROUP)
    copied = False
    for _ in range(30):
        view = fleet.view(RUN)
        what = fleet.advance(RUN, view)
        before = seen(fleet.client)
        fleet.advance(RUN, view)
        assert seen(fleet.client) == before, what
        if isinstance(what, Finished):
            break
        if what == Do(Step.RUN, frozenset({ALPHA, BETA})) and not copied:
            copied = True
            fleet.copy(*GROUP[1:])
            fleet.finish(fleet.claim(A), errno=5 if fate is Decision.ABORT else 0, text="EIO")
    assert isinstance(what, Finished)
    assert fleet.view(RUN).decision is fate
    assert len(fleet.events(*TERMINAL)) == 3
    for _ in range(2):
        fleet.close(RUN)
        assert fleet.registry.views.unfinished() == []


def test_every_answer_repeated_out_of_its_time_changes_nothing(running):
    running.copy(*GROUP)
    for until in (Step.PREPARE, Step.SETTLE, Step.CONCLUDE, Finished):
        running.walk(RUN, until)
        before = seen(running.client)
        for step in (Step.OPEN, Step.CUT, *((Step.SETTLE,) if until is Finished else ())):
            for host in (ALPHA, BETA):
                running.answer(host, RUN, step)
        if until is not Step.PREPARE:
            running.answer(ALPHA, RUN, Step.PREPARE)
        assert seen(running.client) == before, until


@pytest.mark.parametrize("dies_after", range(12))
def test_a_second_finalizer_ends_what_the_first_one_left(client, dies_after):
    first, second = Fleet(client), Fleet(client)
    first.submit(*GROUP)
    first.walk(RUN, Step.RUN)
    first.copy(A, C)
    first.finish(first.claim(B), errno=5, text="EIO")
    for _ in range(dies_after):
        stale = first.view(RUN)
        first.advance(RUN)
    second.walk(RUN)
    if dies_after:
        first.advance(RUN, stale)  # it was only asleep, and wakes with what it saw then
    second.close(RUN)
    assert len(second.events(*TERMINAL)) == 3
    assert second.replayed() == dict.fromkeys("abc", "concluded")
    run = second.registry.views.run(RUN)
    assert (run.failed, run.cancelled, run.open) == (1, 2, 0)


def test_what_a_host_reports_comes_back_to_it(running):
    members = running.host(ALPHA).answers.members(RUN)
    assert [member.spec for member in members] == [A, C]
    assert [(member.status, member.passed, member.claimed) for member in members] == [("running", "cut", False)] * 2
    assert unpack_value(running.client.hget(keys.job(ALPHA, A.id), "opened")) == {}


# --- growth ---------------------------------------------------------------------------------------------


def test_a_run_that_is_over_and_dismissed_leaves_only_its_record(client):
    def live(number):
        run = f"n{number}-20261122T000000Z"
        fleet = Fleet(client)
        jobs = [spec(job.id, host=job.host, run=run) for job in GROUP]
        fleet.submit(*jobs)
        fleet.walk(run, Step.RUN)
        claims = [fleet.claim(job) for job in jobs]
        for claim in claims:
            fleet.registry.verbs.pause(claim.spec.id)
            fleet.registry.verbs.resume(claim.spec.id)
            fleet.finish(claim, errno=5 * (number % 2), text="EIO")
        fleet.walk(run)
        fleet.close(run)
        for job in jobs:
            fleet.registry.verbs.dismiss(job.id)
        return {keys.run(run), keys.run_jobs(run), keys.txn(run), keys.targets(run)}

    records = live(0)
    shared = {key for key in dump(client) if not only_asks(key)} - records
    for number in range(1, 6):
        records |= live(number)
    assert {key for key in dump(client) if not only_asks(key)} - records == shared
    assert shared <= {keys.events(), keys.runs(), keys.decisions()}


@pytest.mark.parametrize(
    ("how", "place"), [("replace", "beta:/backup/b.img"), ("beside", "beta:/backup/b.img.R"), ("discard", "")]
)
def test_what_a_user_resolved_is_told_once_and_on_the_job(running, how, place):
    running.copy(*GROUP)
    running.walk(RUN, Step.SETTLE)
    running.sick = {(Step.SETTLE, "b"): (17, "somebody took the name")}
    running.advance(RUN)
    done = Answer(JobId("b"), result={"resolved": how, "published-as": place})
    for _ in range(2):
        running.host(BETA).answers.answer(RUN, Step.SETTLE, [done])
    running.sick = {}
    running.walk(RUN)
    assert running.events("JOB_RESOLVED") == [("JOB_RESOLVED", "b")]
    job = ends(running)["b"]
    assert (job.status, job.resolved, job.published_as) == ("concluded", how, place)
    assert job.to_json()["resolved"] == {"how": how, "published-as": place}
    assert ends(running)["a"].to_json()["resolved"] is None
    targets = {target.job for target in running.registry.history.targets([running.registry.views.run(RUN)])}
    assert targets == {"a", "c"} | ({"b"} if place else set()), "history has what there is"
