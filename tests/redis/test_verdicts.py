"""Runs of several transactions in the registry: what is kept of their file, who counts where, how they ended."""

from __future__ import annotations

import pytest
from puppets import ALPHA, BETA, RUN, spec

from blockjobs.cli.follow import Silent, outcome_lines
from blockjobs.cli.start import follow_submitted_run, submit_run
from blockjobs.client.fleet import Fleet
from blockjobs.model.barriers import Step
from blockjobs.model.ids import RunId
from blockjobs.model.policies import Policy, RunFields, RunOutcome, Skipped, Store, Verdict
from blockjobs.model.runs import RunPlan

pytestmark = pytest.mark.durable

LEFT = Skipped(transaction="each", host="gamma", jobs=("one", "two"), why="host 'gamma' is down")


def member(name, txn, host=ALPHA):
    return spec(f"{RUN}.{name}", host=host, txn=f"{RUN}.{txn}")


GROUP = (member("a", "group"), member("b", "group", BETA))
EACH = tuple(member(name, f"each.{name}") for name in ("c", "d", "e"))


def mixed(skipped=(), **policy):
    fields = RunFields(
        policies={"group": Policy(), "each": Policy(grouped=False, **policy)}, stores={"s": Store(path="/mnt/s")},
        deadline=5, file="/etc/nightly.yaml", skipped=skipped,
    )  # fmt: skip
    return RunPlan(RunId(RUN), "nightly", False, (GROUP, *((job,) for job in EACH)), fields)  # noqa: FBT003


def ended(fleet, plan, failing=()):
    """The run, walked to its end."""
    fleet.registry.submit.submit(plan)
    for members in plan.transactions:
        txn = members[0].transaction
        fleet.walk(txn, Step.RUN)
        for job in members:
            bad = job.id.removeprefix(f"{RUN}.") in failing
            fleet.finish(fleet.claim(job), errno=5 if bad else 0, text="it broke" if bad else "")
        fleet.walk(txn)
    return fleet.registry.views.run(RUN)


def test_a_run_keeps_what_its_file_asks_for(fleet):
    plan = mixed(succeed_if=95.0, retry=2, keep={"last": 3})
    fleet.registry.submit.submit(plan)
    view = fleet.registry.views.run(RUN)
    assert view.fields == plan.fields
    assert (view.mode, view.to_json()["completion-mode"]) == ("mixed", "mixed")


@pytest.mark.parametrize(
    ("failing", "plan", "verdict", "bad"),
    [
        ((), mixed(), Verdict.ALL, {}),
        (("c",), mixed(), Verdict.FAILED, {"each": 1}),
        (("c",), mixed(succeed_if=60.0), Verdict.PARTIAL, {"each": 1}),
        (("c",), mixed((LEFT,), succeed_if=60.0), Verdict.FAILED, {"each": 1}),
        ((), mixed((LEFT,)), Verdict.PARTIAL, {}),
        (("a",), mixed(succeed_if=60.0), Verdict.FAILED, {"group": 2}),
    ],
    ids=["all", "one-failed", "enough", "too-few-with-those-left-out", "left-out", "a-group-is-all-or-nothing"],
)
def test_each_transaction_is_counted_for_itself(fleet, command, failing, plan, *, verdict, bad):
    view = ended(fleet, plan, failing)
    assert view.bad == bad
    assert view.skipped == sum(len(left.jobs) for left in plan.fields.skipped)
    assert fleet.registry.views.verdict(RUN) is verdict
    assert command("wait", RUN)[0] == int(verdict)


def test_a_job_that_is_dismissed_still_counts(fleet, command):
    ended(fleet, mixed(succeed_if=60.0), ["c"])
    assert command("dismiss", RUN)[0] == 0
    assert command("wait", RUN)[:2] == (4, f"{RUN}: partly succeeded, accepted by the run file\n")


def test_what_was_left_out_is_told_by_the_events_and_by_show(fleet, command):
    ended(fleet, mixed((LEFT,)))
    told = {event.name: event.fields for event in fleet.history() if event.id == RUN}
    assert told["RUN_PUBLISHED"]["skipped"] == told["RUN_ENDED"]["skipped"] == "2"
    assert "  skipped of transaction each: gamma: one, two: host 'gamma' is down\n" in command("show", RUN)[1]
    assert "submitted, 5 jobs, 2 skipped" in command("events")[1]
    assert "committed at" in command("status", RUN)[1]
    assert ", 2 skipped\n" in command("status", RUN)[1]


def test_a_host_that_goes_away_after_it_was_asked_is_asked_about_again(fleet, server):
    """Between the question and the submit: the fleet is asked once more whether the run can do without it."""
    fleet.registry.hosts.judge(ALPHA, "up")
    plans = iter([mixed(), RunPlan(RunId(RUN), "nightly", False, tuple((job,) for job in EACH))])  # noqa: FBT003
    asked = []
    with Fleet(server.url) as here:
        submit_run(here, lambda _: next(plans), lambda: asked.append(1))
    assert len(asked) == 2
    assert fleet.registry.views.run(RUN).jobs == 3


def test_a_run_that_was_over_before_anybody_followed_it_is_told_as_it_ended(fleet, server):
    """A host may refuse a job before the command that submitted it looks at the run for the first time."""
    plan = mixed()
    with Fleet(server.url) as here:
        seq = here.registry.events.last()
        ended(fleet, plan, failing=("c",))
        board = follow_submitted_run(here, plan, seq, Silent())
    assert board.runs[plan.run].outcome is RunOutcome.PARTLY
    assert any(f"{RUN}.c failed: it broke" in line for line in outcome_lines(board, plan.run))
