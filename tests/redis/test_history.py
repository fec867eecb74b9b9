"""What stays of a run when its jobs are gone: figures, the reason, what it has published, and what was pruned of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from puppets import SIZE, Fleet, grouped, spec

from blockjobs.model import volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.runs import RunPlan
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress
from blockjobs.registry.retention import KEEP_RUNS

pytestmark = pytest.mark.durable

BYTES = {"read": 700, "written": 600, "zero": 100, "skipped": 5}


def ended(fleet: Fleet, day: int, *names: str, keep: dict[str, int] | None = None, fails: str = "") -> RunPlan:
    """A grouped run of the name ``nightly`` on one day of November, walked to its end."""
    run = f"nightly-202611{day:02}T100000Z"
    jobs = [
        spec(f"{run}.{name}", run=run, source=volumespec.parse_volume(f"alpha:/srv/{name}.img"),
             target=volumespec.parse_volume(f"alpha:/backup/{run}/{name}.img"), target_base="/backup")
        for name in names
    ]  # fmt: skip
    fields = RunFields(policies={"": Policy(keep=keep or {})})
    plan = RunPlan(jobs[0].run, "nightly", grouped=True, transactions=(tuple(jobs),), fields=fields)
    fleet.registry.submit.submit(plan)
    fleet.walk(jobs[0].transaction, Step.RUN)
    for job in jobs:
        claim, bad = fleet.claim(job), job.id.endswith(f".{fails}")
        fleet.host(job.host).attempts.finish(
            claim, Progress(SIZE, SIZE, BYTES), durable=None, result={}, errno=5 * bad, text="EIO" if bad else ""
        )
    fleet.walk(jobs[0].transaction)
    fleet.close(jobs[0].transaction)
    return plan


def test_figures_survive_the_dismissal_of_every_job(fleet, command):
    plan = ended(fleet, 1, "a", "b")
    for job in plan.jobs:
        fleet.registry.verbs.dismiss(job.id)
    code, out, _ = command("history", "nightly", "--json")
    (run,) = json.loads(out)
    assert code == 0
    assert (run["id"], run["outcome"], run["jobs"], run["committed"]) == (plan.run, "committed", 2, 2)
    assert run["bytes"] == {name: 2 * count for name, count in BYTES.items()}
    assert (run["len"], run["attempts"], run["targets"]) == (2 * SIZE, 2, 2)
    assert run["elapsed"] > 0
    assert run["rate"] > 0


def test_a_run_that_failed_says_why_and_has_nothing_to_prune(fleet, command):
    ended(fleet, 1, "a", "b", fails="b", keep={"last": 1})
    _, out, _ = command("history", "--json")
    (run,) = json.loads(out)
    assert (run["outcome"], run["targets"], run["failed"], run["cancelled"]) == ("aborted", 0, 1, 1)
    assert run["why"].endswith(".b: EIO")
    assert fleet.registry.history.due() == []


def test_a_run_that_waits_for_its_turn_is_queued_and_no_other(fleet, command):
    first, second = (grouped(spec(f"night-2026110{n}T100000Z.a", run=f"night-2026110{n}T100000Z")) for n in (1, 2))
    fleet.registry.submit.submit(replace(first, fields=RunFields(on_overlap="refuse")))
    fleet.registry.submit.submit(replace(second, fields=RunFields(on_overlap="queue")))
    outcomes = {run["id"]: run["outcome"] for run in json.loads(command("history", "--json")[1])}
    assert outcomes == {second.run: "queued", first.run: "running"}
    fleet.registry.verbs.cancel(first.jobs[0].id)
    fleet.walk(first.run)
    fleet.registry.submit.advance()
    outcomes = {run["id"]: run["outcome"] for run in json.loads(command("history", "--json")[1])}
    assert outcomes == {second.run: "running", first.run: "cancelled"}


def test_history_is_newest_first_and_by_name(fleet, command):
    for day in (1, 2, 3):
        ended(fleet, day, "a")
    fleet.registry.submit.submit(replace(grouped(spec("x", run="other-20261101T100000Z")), name="other"))
    _, out, _ = command("history", "nightly", "--limit", "2")
    assert [line.split()[0] for line in out.splitlines()[1:]] == [
        "nightly-20261103T100000Z",
        "nightly-20261102T100000Z",
    ]
    code, _, err = command("history", "nobody")
    assert code == 2
    assert "no run is named 'nobody'" in err


@pytest.mark.parametrize(("keep", "due"), [({"last": 1}, True), ({}, False)])
def test_a_run_that_commits_with_a_rule_is_due_to_prune(fleet, keep, due):
    plan = ended(fleet, 1, "a", keep=keep)
    assert fleet.registry.history.due() == [plan.run] * due


def test_pruned_is_noted_once_with_one_event_and_the_run_says_so(fleet, command):
    plan = ended(fleet, 1, "a", keep={"last": 1})
    (target,) = fleet.registry.history.targets([fleet.registry.views.run(plan.run)])
    assert (target.host, target.path, target.base) == ("alpha", f"/backup/{plan.run}/a.img", "/backup")
    assert target.number == int(fleet.client.get(keys.decisions()))
    fleet.registry.history.leave(target, "in the way")
    fleet.registry.history.leave(target, "in the way")
    assert "a was not pruned: in the way" in command("history")[1]
    fleet.registry.history.pruned(target)
    fleet.registry.history.pruned(target)
    assert fleet.events("TARGET_LEFT", "TARGET_PRUNED") == [("TARGET_LEFT", target.job), ("TARGET_PRUNED", target.job)]
    (run,) = json.loads(command("history", "--json")[1])
    assert (run["pruned"], run["targets"], run["left"]) == (1, 0, {})


def test_what_a_target_lies_on_is_known(fleet):
    image = {"driver": "qcow2", "file": {"driver": "file", "filename": "/backup/top.qcow2"}, "host": "alpha",
             "backing": {"driver": "qcow2", "file": {"driver": "file", "filename": "/backup/mid.qcow2"},
                         "backing": {"driver": "file", "filename": "/backup/base.img"}}}  # fmt: skip
    job = spec("a", target=volumespec.parse_volume(image))
    fleet.registry.submit.submit(grouped(job))
    fleet.walk(job.transaction, Step.RUN)
    fleet.copy(job)
    fleet.walk(job.transaction)
    (target,) = fleet.registry.history.targets(fleet.registry.views.runs())
    assert (target.path, target.layers) == ("/backup/top.qcow2", ("/backup/mid.qcow2", "/backup/base.img"))


def test_a_copy_that_is_no_backup_leaves_no_target(fleet):
    job = spec("a", target=volumespec.parse_volume({"host": "alpha", "driver": "null-co", "size": SIZE}))
    fleet.submit(job)
    fleet.walk(job.transaction, Step.RUN)
    fleet.copy(job)
    fleet.walk(job.transaction)
    assert fleet.status("a") == "concluded"
    assert not fleet.client.exists(keys.targets(job.run))


def test_a_run_began_with_the_first_of_its_jobs(fleet):
    groups = tuple(spec(name, txn="t1") for name in "abc"), (spec("d", txn="t2"),)
    fleet.registry.submit.submit(RunPlan(groups[0][0].run, "nightly", grouped=False, transactions=groups))
    for group, moments in zip(groups, ((2000, 1000, 3000), (2000,)), strict=True):
        fleet.walk(group[0].transaction, Step.RUN)
        for job, moment in zip(group, moments, strict=True):
            fleet.copy(job)
            fleet.client.hset(keys.job(job.host, job.id), "started", moment)
        fleet.walk(group[0].transaction)
    assert fleet.client.hget(keys.run(groups[0][0].run), "began") == b"1000"


def test_an_old_run_stays_in_history_as_long_as_a_rule_keeps_its_targets(fleet):
    plan, now = ended(fleet, 1, "a", keep={"monthly": 12}), fleet.registry.hosts.now()
    assert fleet.registry.retention.forget(now + KEEP_RUNS + 1000).runs == []
    assert fleet.registry.views.places(plan.run) == [], "its jobs are gone"
    (target,) = fleet.registry.history.targets(fleet.registry.views.runs())
    fleet.registry.history.pruned(target)
    assert fleet.registry.retention.forget(now + KEEP_RUNS + 1000).runs == [plan.run]
    assert not fleet.client.exists(keys.run(plan.run), keys.targets(plan.run), keys.left(plan.run))
