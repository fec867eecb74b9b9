"""Backups of which parts could not be read, in the registry: counted, told, and never taken for whole ones."""

from __future__ import annotations

import pytest
from puppets import SIZE, Fleet, spec

from blockjobs.model import keep as keeping
from blockjobs.model import volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.policies import Policy, RunFields, Verdict
from blockjobs.model.runs import RunPlan
from blockjobs.registry.attempts import Progress
from blockjobs.registry.history import keep_rules

pytestmark = pytest.mark.durable

LOST = {"salvaged": [[4096, 8192], [40960, 45056]], "salvaged-bytes": 8192, "salvaged-more": 3}


def ended(fleet: Fleet, day: int, *names: str, salvaged: str = "", policy: Policy | None = None) -> RunPlan:
    """A grouped run of the name ``nightly`` on one day of November, walked to its end."""
    run = f"nightly-202611{day:02}T100000Z"
    jobs = [
        spec(f"{run}.{name}", run=run, source=volumespec.parse_volume(f"alpha:/srv/{name}.img"),
             target=volumespec.parse_volume(f"alpha:/backup/{run}/{name}.img"), target_base="/backup")
        for name in names
    ]  # fmt: skip
    fields = RunFields(policies={} if policy is None else {"": policy})
    plan = RunPlan(jobs[0].run, "nightly", grouped=True, transactions=(tuple(jobs),), fields=fields)
    fleet.registry.submit.submit(plan)
    fleet.walk(jobs[0].transaction, Step.RUN)
    for job in jobs:
        result = LOST if job.id.endswith(f".{salvaged}") else {}
        fleet.host(job.host).attempts.finish(fleet.claim(job), Progress(SIZE, SIZE, {}), durable=None, result=result)
    fleet.walk(jobs[0].transaction)
    fleet.close(jobs[0].transaction)
    return plan


@pytest.mark.parametrize(("policy", "verdict"), [
    (None, Verdict.FAILED), (Policy(), Verdict.FAILED), (Policy(salvaged=True), Verdict.PARTIAL),
], ids=["no run file", "a run file", "salvaged will do"])  # fmt: skip
def test_a_salvaged_job_commits_and_its_run_ends_badly_unless_that_will_do(fleet, command, policy, verdict):
    plan = ended(fleet, 1, "a", "b", salvaged="b", policy=policy)
    view = fleet.registry.views.run(plan.run)
    assert (view.failed, view.cancelled, view.salvaged) == (0, 0, 1)
    assert fleet.registry.views.verdict(plan.run) is verdict
    assert command("wait", plan.run)[0] == int(verdict)
    told = {event.name: event.fields for event in fleet.history() if event.id == plan.run}
    assert told["RUN_ENDED"]["salvaged"] == "1"


def test_show_and_report_name_what_could_not_be_read(fleet, command):
    plan = ended(fleet, 1, "a", "b", salvaged="b")
    ranges = "4096 to 8192, 40960 to 45056 and 3 more"
    assert f"  salvaged:    {ranges}\n" in command("show", f"{plan.run}.b")[1]
    report = command("report", plan.run)[1]
    assert f"  b on alpha: 8.0 KiB: bytes {ranges}\n" in report
    assert "1 ok, 1 salvaged" in report
    assert "1 ok, 1 salvaged" in command("history", "nightly")[1]


def test_a_whole_run_says_nothing_of_salvage(fleet, command):
    plan = ended(fleet, 1, "a", "b")
    assert fleet.registry.views.verdict(plan.run) is Verdict.ALL
    assert "salvaged" not in command("report", plan.run)[1]
    assert "salvaged" not in command("show", f"{plan.run}.b")[1]


def test_a_job_that_lost_parts_of_its_source_and_is_cancelled_is_no_salvaged_one(fleet):
    lost, fails = spec("a"), spec("b")
    fleet.submit(lost, fails)
    fleet.walk(lost.transaction, Step.RUN)
    fleet.host(lost.host).attempts.finish(fleet.claim(lost), Progress(SIZE, SIZE, {}), durable=None, result=LOST)
    fleet.finish(fleet.claim(fails), errno=5, text="EIO")
    fleet.walk(lost.transaction)
    view = fleet.registry.views.run(lost.run)
    assert (view.failed, view.cancelled, view.salvaged) == (1, 1, 0)


def test_a_salvaged_backup_never_ends_the_life_of_a_whole_one(fleet):
    """The rule keeps one; the whole one of the day before stays beside the salvaged one, until a whole one comes."""
    rule = Policy(keep={"last": 1}, salvaged=True)

    def pruned():
        runs = fleet.registry.views.runs()
        targets = fleet.registry.history.targets(runs)
        fate = keeping.plan_pruning(targets, keep_rules(runs, targets))
        return {target.run[14:16] for target in fate.prune}

    ended(fleet, 1, "a", policy=rule)
    ended(fleet, 2, "a", salvaged="a", policy=rule)
    assert pruned() == set()
    ended(fleet, 3, "a", salvaged="a", policy=rule)
    assert pruned() == {"02"}
    ended(fleet, 4, "a", policy=rule)
    assert pruned() == {"01", "02", "03"}
