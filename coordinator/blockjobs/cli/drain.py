"""``drain`` and ``undrain``: let a host or a volume come to rest, and let the host or volume work again."""

from __future__ import annotations

from collections import Counter

import click

from blockjobs.cli.options import cause_option, for_option, redis_option, user_and_machine
from blockjobs.cli.phrases import counted_noun
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import WaitTimedOut
from blockjobs.model.ids import Host
from blockjobs.registry.hosts import Judged
from blockjobs.registry.views import JobView


@click.command()
@click.argument("what", metavar="HOST|NODE|VOLUME")
@cause_option
@for_option
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Seconds to wait until the jobs rest; 0: do not wait."
)
@redis_option
def drain(what: str, cause: str, seconds: float | None, timeout: float | None, url: str | None) -> None:
    """Hold the jobs of a host, or those that use a volume, and wait until they rest.

    Their attempts end once what they copied is durable: files are closed and slots free. Jobs that start later are
    held too. Steps of a transaction (open, commit, abort) still happen: stop the host's workers to end those.

    Exit code 0: every job is at rest; 5: the time of the wait is over, and at least one job still runs.

    \b
    Example:
      blockjobs drain web1 --cause 'kernel update'
      blockjobs drain web1:/srv/images/root.img
    """
    with Fleet(url) as fleet:
        held = fleet.drain(what, cause=cause, owner=user_and_machine(), seconds=seconds or 0.0)
        click.echo(f"{what}: {counted_noun(held, 'job')} held; to lift it: blockjobs undrain {what}")
        if timeout == 0:
            return
        try:
            fleet.wait_drained(what, timeout)
        except WaitTimedOut as late:
            for job in fleet.drained(what):
                if job.id in late.ids:
                    click.echo(f"{what}: {why_attempt_goes_on(fleet, job)}", err=True)
            raise
        click.echo(f"{what}: at rest{drain_summary(list(fleet.drained(what)))}")


def drain_summary(jobs: list[JobView]) -> str:
    """``: 2 jobs paused, 1 job waiting``: the statuses of the jobs that are not over."""
    words = Counter(str(job.status) for job in jobs)
    return ": " + ", ".join(f"{counted_noun(n, 'job')} {word}" for word, n in sorted(words.items())) if words else ""


def why_attempt_goes_on(fleet: Fleet, job: JobView) -> str:
    """Why a job still has an attempt."""
    judged = fleet.registry.hosts.known().get(Host(job.host), Judged("unknown", 0))
    if judged.state != "up":
        return f"job {job.id} has an attempt of unknown state: host {job.host} is {judged.state}"
    return f"job {job.id} has not stopped writing yet" if job.busy else f"job {job.id} is paused and not parked yet"


@click.command()
@click.argument("what", metavar="HOST|NODE|VOLUME")
@redis_option
def undrain(what: str, url: str | None) -> None:
    """Let a drained host or volume work again.

    \b
    Example:
      blockjobs undrain web1
    """
    with Fleet(url) as fleet:
        click.echo(f"{what}: no longer holds {counted_noun(fleet.undrain(what), 'job')}")
