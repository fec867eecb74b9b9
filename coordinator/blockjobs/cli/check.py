"""``check``: whether a run file is in order, as far as the file alone can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from blockjobs.cli import runfile
from blockjobs.cli.run import file_options
from blockjobs.cli.words import count
from blockjobs.model.policies import transaction_name
from blockjobs.model.runs import NameUsed, RunPlan


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@file_options
def check(file: Path, only: tuple[str, ...], changes: tuple[str, ...]) -> None:
    """Say whether a run FILE is in order; asks neither Redis nor any host.

    Exit code 0: it is; 2: it is not, and one line says where.

    \b
    Example:
      blockjobs check nightly.yaml --set defaults.speed=50MiB
    """
    read = runfile.read(file, changes, only)
    try:
        plan = read.plan(datetime.now(UTC))
    except NameUsed as used:
        click.echo(f"{file}: in order, as far as the file tells: {used.args[0].partition(':')[0]} is a name")
        return
    click.echo("\n".join([f"{file}: in order", *about(plan, [glob.pattern for glob in read.globs()])]))


def about(plan: RunPlan, globs: Sequence[str]) -> Iterator[str]:
    """One line for each transaction of the file; a glob counts for one job a host."""
    policies = plan.fields.policies
    names = [transaction_name(plan.run, job.transaction, policies) for job in plan.jobs]
    jobs = Counter(names)
    for name, policy in policies.items():
        hosts = {job.host for job, of in zip(plan.jobs, names, strict=True) if of == name}
        parts = ["grouped" if policy.grouped else "individual"]
        parts.append(f"{count(jobs[name], 'job')} on {count(len(hosts), 'host')}")
        parts += [f"offline: {policy.offline}"] * (policy.offline.what != "fail")
        parts += [f"succeed-if: {policy.succeed_if:g}%"] if policy.succeed_if is not None else []
        parts += ["succeed-if: salvaged"] * policy.salvaged
        yield f"  {f'transaction {name}' if name else 'jobs'}: {', '.join(parts)}"
    if globs:
        patterns = ", ".join(dict.fromkeys(globs))
        yield f"  what {patterns} is, the hosts say when it is run; here it counts for one job on each"
