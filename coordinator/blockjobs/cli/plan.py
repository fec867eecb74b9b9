"""``plan``: the effects of a run, by the hosts' answers; nothing is started and nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import click

from blockjobs.cli.gather import ask_about_volumes, gather_fleet_facts
from blockjobs.cli.job_options import file_options
from blockjobs.cli.options import redis_option
from blockjobs.cli.output import aligned_lines, duration_as_clock, print_json
from blockjobs.cli.phrases import counted_noun, name_within_run
from blockjobs.cli.start import read_whole
from blockjobs.cli.tellable import notify_target_error
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import VolumeBusy
from blockjobs.model.forecast import CopyRates, Outlook, Owing, job_outlooks, run_duration
from blockjobs.model.ids import Host, JobId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.numbers import size_text
from blockjobs.model.runs import RunPlan
from blockjobs.model.states import Status
from blockjobs.registry.sizes import last_sizes
from blockjobs.registry.views import JobView

EARLIER: Final = 10  # earlier runs of the same name for the estimate
TITLES: Final = ["JOB", "HOST", "BYTES", "SIZE", "NEEDS", "FREE", "TIME", ""]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@file_options
@click.option("--json", "json", is_flag=True, help="Print it as JSON.")
@redis_option
def plan(file: Path, url: str | None, json: bool, only: tuple[str, ...], changes: tuple[str, ...]) -> int:
    """Preview `run` FILE: bytes, room, time, and the obstacles to a start.

    The hosts have to be up; nothing is started and nothing is changed. NEEDS is the room for the target, estimated by
    the last committed backup of the job, or else by the data of the source. FREE is the free space at the target, minus
    the room that running jobs still need there; TIME is estimated by earlier runs of the same name.

    Exit code 0: no obstacle; 1: an obstacle was found; 2: `run` would refuse the file; 3: no Redis.

    \b
    Example:
      blockjobs plan nightly.yaml
      blockjobs plan nightly.yaml --only db --json
    """
    read = read_whole(file, changes, only)
    with Fleet(url) as fleet:
        facts = gather_fleet_facts(fleet, read, lambda text: click.echo(text, err=True), patient=False)
        run = read.plan(datetime.now(UTC), facts)
        jobs = forecast_run(fleet, run)
        slots = {host.name: host.slots for host in fleet.hosts()}
        same = [each.id for each in fleet.runs() if each.name == run.name and not each.ended]
        if wrong := notify_target_error(fleet.registry.notices, run.fields.notify):
            click.echo(f"warning: {wrong}", err=True)
    took = run_duration(jobs, slots)
    if json:
        print_json(plan_as_json(run, jobs, took, same))
    else:
        click.echo("\n".join(plan_lines(run, jobs, took, same)))
    return 1 if any(job.wrong for job in jobs) else 0


def forecast_run(fleet: Fleet, run: RunPlan) -> list[Outlook]:
    """Ask the hosts of a run about the run's jobs, and about the running jobs of these hosts."""
    hosts, stores = {job.host for job in run.jobs}, {job.store for job in run.jobs} - {""}
    live = [
        job for job in fleet.registry.views.jobs(fleet.registry.holds.live())
        if job.status is not Status.CONCLUDED and (job.host in hosts or job.spec.store in stores)
    ]  # fmt: skip
    looks: dict[Host, list[tuple[JobId, dict[str, Any]]]] = {}
    for spec in run.jobs:
        looks.setdefault(spec.host, []).append((spec.id, {"as": "forecast", "spec": spec.to_dict()}))
    for job in live:
        looks.setdefault(job.host, []).append((job.id, {"as": "room", "spec": job.spec.to_dict()}))
    answers = ask_about_volumes(fleet, {host: [look for _, look in each] for host, each in looks.items()})
    seen: dict[JobId, dict[str, Any]] = {}
    for host, asked in looks.items():
        told = answers[host]
        for at, (job_id, _) in enumerate(asked):
            seen[job_id] = {"text": told} if isinstance(told, str) else told[at]
    owing = [Owing(job.spec, seen[job.id], max(0, job.len - job.offset)) for job in live]
    busy = {spec.id: list(volume_conflicts(fleet, spec)) for spec in run.jobs}
    last: dict[JobId, int] = {}
    for host in hosts:
        last |= last_sizes(fleet.registry.client, host, (spec for spec in run.jobs if spec.host == host))
    return job_outlooks(run.jobs, seen, owing, median_copy_rates(fleet, run.name), busy, last=last)


def volume_conflicts(fleet: Fleet, spec: JobSpec) -> Iterator[str]:
    """The refusals of ``run`` because of running jobs, with the same texts."""
    nodes = fleet.registry.nodes
    for volume in (spec.source, spec.target):
        if writer := nodes.writer(volume):
            yield str(VolumeBusy(volume.text, writer, nodes.type_of(writer)))
    if nodes.readers(spec.target):
        yield str(VolumeBusy(spec.target.text, "", "backup"))


def median_copy_rates(fleet: Fleet, name: str) -> CopyRates:
    """Bytes a second read by jobs of earlier runs of a name: the median, so that a single bad night has no effect."""
    earlier = [run for run in fleet.runs() if run.name == name and run.ended][:EARLIER]
    found: dict[str, list[float]] = {}
    for run in earlier:
        for job in fleet.list(run.id):
            if rate := _read_rate(job):
                found.setdefault(name_within_run(job.id, run.id), []).append(rate)
    every = [rate for each in found.values() for rate in each]
    return CopyRates({job: median(each) for job, each in found.items()}, median(every) if every else None)


def _read_rate(job: JobView) -> float:
    amount = job.bytes.get("read", 0)
    return amount / job.elapsed if job.status is Status.CONCLUDED and job.ret == 0 and job.elapsed else 0.0


# --- shown ----------------------------------------------------------------------------------------------


def plan_lines(run: RunPlan, jobs: Sequence[Outlook], took: float | None, same: Sequence[str]) -> Iterator[str]:
    yield from aligned_lines([TITLES, *(outlook_cells(run, job) for job in jobs)])
    for left in run.fields.skipped:
        yield f"skipped: {left.host}: {', '.join(left.jobs)}: {left.why}"
    for other in same:
        yield f"run {other} is not over"
    for job in jobs:
        yield from (f"warning: {name_within_run(job.job, run.run)} on {job.host}: {text}" for text in job.warnings)
    total = f"{counted_noun(len(jobs), 'job')}, {size_text(sum(job.bytes for job in jobs))} to read"
    about = f", about {duration_as_clock(took)} by earlier runs" if took is not None else ""
    wrong = sum(bool(job.wrong) for job in jobs)
    yield total + about + (f"; something stands in the way of {counted_noun(wrong, 'job')}" if wrong else "")


def outlook_cells(run: RunPlan, job: Outlook) -> list[str]:
    free = "" if job.free is None else size_text(job.free)
    takes = "" if job.seconds is None else duration_as_clock(job.seconds)
    needs = "" if job.needs is None else f"{size_text(job.needs.bytes)} ({job.needs.origin})"
    name, wrong = name_within_run(job.job, run.run), "; ".join(job.wrong)
    return [name, job.host, size_text(job.bytes), size_text(job.size), needs, free, takes, wrong]


def plan_as_json(run: RunPlan, jobs: Sequence[Outlook], took: float | None, same: Sequence[str]) -> dict[str, Any]:
    return {
        "name": run.name, "time": time.time(), "jobs": [job.to_json() for job in jobs],
        "bytes": sum(job.bytes for job in jobs), "seconds": None if took is None else round(took, 1),
        "left-out": [left.to_json() for left in run.fields.skipped],
        "unfinished": list(same),
    }  # fmt: skip
