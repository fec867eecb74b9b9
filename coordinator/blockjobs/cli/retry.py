"""``retry``: start the uncommitted jobs of a run again, as a new run of the same name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import click

from blockjobs.cli import runfile
from blockjobs.cli.gather import gather_fleet_facts, unavailable_hosts
from blockjobs.cli.job_options import follower_options
from blockjobs.cli.phrases import counted_noun, name_within_run
from blockjobs.cli.start import start_and_follow
from blockjobs.client.fleet import Fleet
from blockjobs.model import rerun
from blockjobs.model.errors import Refused
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import ALONE, Policy, Skipped, transaction_name
from blockjobs.model.runs import RunPlan
from blockjobs.model.states import Status
from blockjobs.registry.views import JobView, RunView


@click.command()
@click.argument("run_id", metavar="RUN")
@follower_options
def retry(run_id: str, url: str | None, detach: bool, json: bool, patience: float) -> int:
    """Start the failed, cancelled and skipped jobs of a RUN again, in a new run, and follow the new run to the end.

    The new run has the same name and the same jobs as submitted; {run}, {date} and {time} in targets stand for the new
    run. Every job of a grouped transaction that aborted is started again. Committed jobs are not touched. Refused while
    RUN is still going. Exit codes: see `run`.

    \b
    Example:
      blockjobs retry nightly-20261122T103000Z
      blockjobs retry nightly-20261122T103000Z --detach
    """
    with Fleet(url) as fleet:
        run = fleet.run(run_id)
        if not run.ended:
            raise Refused(f"run '{run.id}' is still going: {counted_noun(run.open, 'job')} of {run.jobs} are not over")
        jobs = [job.spec for job in uncommitted_jobs(fleet, run)]
        if not jobs and not run.fields.skipped:
            raise Refused(f"run '{run.id}' has nothing to start again: every job of it committed")
        plan_at = rerun_planner(fleet, run, jobs)
        return start_and_follow(fleet, plan_at, detach=detach, json=json, patience=patience)


def uncommitted_jobs(fleet: Fleet, run: RunView) -> list[JobView]:
    """The jobs of a run that did not commit.

    Raises:
        Refused: the record of such a job was dismissed, and with it the job's spec.
    """
    there = [job for job in fleet.list(run.id) if job.run == run.id]
    bad = [job for job in there if job.status is Status.CONCLUDED and job.ret]
    if missing := run.failed + run.cancelled - len(bad):
        what = counted_noun(missing, "job")
        raise Refused(
            f"run '{run.id}': {what} that failed {'was' if missing == 1 else 'were'} dismissed; start its file"
        )
    return bad


def rerun_planner(fleet: Fleet, run: RunView, jobs: Sequence[JobSpec]) -> Callable[[datetime], RunPlan]:
    """The function that plans the rerun for a start time; skipped jobs are planned anew from the run's file.

    Raises:
        Refused: the file cannot be read, or no job can be started, as hosts are away.
    """
    away = unavailable_hosts(fleet, dict.fromkeys(job.host for job in jobs))
    going, skipped = [], []
    for job in jobs:
        name = transaction_name(run.id, job.transaction, run.fields.policies)
        if job.host in away and run.fields.policies.get(name, Policy()).offline.what == "skip":
            why = f"host '{job.host}' {away[job.host]}"
            skipped.append(Skipped(transaction=name, host=job.host, jobs=(name_within_run(job.id, run.id),), why=why))
        else:
            going.append(job)
    more_at = left_out(fleet, run)

    def plan_at(now: datetime) -> RunPlan:
        more, still = more_at(now)
        if not going and not more:
            raise Refused(f"run '{run.id}' has nothing that can be started now: {(*skipped, *still)[0].why}")
        return rerun.plan_rerun(
            run.id, run.name, going, run.fields, now, grouped=run.grouped, more=more, skipped=(*skipped, *still)
        )

    return plan_at


def left_out(fleet: Fleet, run: RunView) -> Callable[[datetime], tuple[list[JobSpec], tuple[Skipped, ...]]]:
    """The function that plans the jobs skipped by the run, from its file: jobs to start, and parts skipped again."""
    wanted = {(each.transaction, each.host) for each in run.fields.skipped}
    if not wanted:
        return lambda _: ([], ())
    if not run.fields.file:
        raise Refused(f"run '{run.id}' has no run file, which names the skipped jobs: start the run as before")
    had = {name_within_run(place.job, run.id) for place in fleet.registry.views.places(run.id)}
    read = runfile.read_run_file(Path(run.fields.file), (), sorted({name for name, _ in wanted} - {ALONE}))
    facts = gather_fleet_facts(fleet, read, lambda text: click.echo(text, err=True))

    def at(now: datetime) -> tuple[list[JobSpec], tuple[Skipped, ...]]:
        plan = read.plan(now, facts)
        if plan.name != run.name:
            raise Refused(f"{run.fields.file} is of name '{plan.name}' now, '{run.name}' was expected")
        policies = plan.fields.policies
        jobs = [
            job for job in plan.jobs
            if (transaction_name(plan.run, job.transaction, policies), job.host) in wanted
            and name_within_run(job.id, plan.run) not in had
        ]  # fmt: skip
        return jobs, tuple(each for each in plan.fields.skipped if (each.transaction, each.host) in wanted)

    return at
