"""``check``: whether a run file is in order, as far as the file alone can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import redis

from blockjobs.cli import runfile
from blockjobs.cli.job_options import file_options
from blockjobs.cli.options import redis_option
from blockjobs.cli.phrases import counted_noun
from blockjobs.cli.tellable import first_of_apprise, notify_target_error
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import BadInput, BlockjobsError
from blockjobs.model.policies import transaction_name
from blockjobs.model.runs import NameUsed, RunPlan


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@file_options
@redis_option
def check(file: Path, only: tuple[str, ...], changes: tuple[str, ...], url: str | None) -> None:
    """Check a run FILE for errors; no host is asked, and nothing is started.

    Notification targets other than webhooks (mail, chats, pagers) need apprise on the machine of the coordinator; the
    coordinator reports in Redis whether apprise is there. Without Redis this is reported as not known, and everything
    else is checked.

    Exit code 0: the file is in order; 2: the file has an error, and one line names the place.

    \b
    Example:
      blockjobs check nightly.yaml --set defaults.speed=50MiB
    """
    read = runfile.read_run_file(file, changes, only)
    try:
        plan = read.plan(datetime.now(UTC))
    except NameUsed as used:
        unknown = who_is_told(file, read.file.notify.said(), url)
        click.echo(f"{file}: in order, as far as the file tells: {used.args[0].partition(':')[0]} is a name")
        click.echo("".join(f"{line}\n" for line in unknown), nl=False)
        return
    unknown = who_is_told(file, plan.fields.notify, url)
    click.echo(
        "\n".join([f"{file}: in order", *transaction_lines(plan, [glob.pattern for glob in read.globs()]), *unknown])
    )


def who_is_told(file: Path, notify: Mapping[str, Sequence[str]], url: str | None) -> list[str]:
    """Lines about notify URLs of a run file whose delivery by apprise cannot be confirmed.

    Raises:
        BadInput: a URL cannot be notified.
    """
    first = first_of_apprise(notify)
    if not first:
        return []
    try:
        with Fleet(url) as fleet:
            wrong, known = notify_target_error(fleet.registry.notices, notify), fleet.registry.notices.has_apprise()
    except (BlockjobsError, redis.RedisError) as error:
        return [f"  {first}: whether the coordinator has apprise, which tells it, is not known: {error}"]
    if wrong:
        raise BadInput(f"{file}: {wrong}")
    return [] if known else [f"  {first}: whether the coordinator has apprise is not known: none runs"]


def transaction_lines(plan: RunPlan, globs: Sequence[str]) -> Iterator[str]:
    """A line per transaction of the file; a glob counts for a job on every host."""
    policies = plan.fields.policies
    names = [transaction_name(plan.run, job.transaction, policies) for job in plan.jobs]
    jobs = Counter(names)
    for name, policy in policies.items():
        hosts = {job.host for job, of in zip(plan.jobs, names, strict=True) if of == name}
        parts = ["grouped" if policy.grouped else "individual"]
        parts.append(f"{counted_noun(jobs[name], 'job')} on {counted_noun(len(hosts), 'host')}")
        parts += [f"offline: {policy.offline}"] * (policy.offline.what != "fail")
        parts += [f"succeed-if: {policy.succeed_if:g}%"] if policy.succeed_if is not None else []
        parts += ["succeed-if: salvaged"] * policy.salvaged
        yield f"  {f'transaction {name}' if name else 'jobs'}: {', '.join(parts)}"
    if globs:
        patterns = ", ".join(dict.fromkeys(globs))
        yield f"  what {patterns} is, the hosts say when it is run; here it counts for one job on each"
