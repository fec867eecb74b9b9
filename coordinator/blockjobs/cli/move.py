"""``move``: let a job go on upon a different host."""

from __future__ import annotations

import click

from blockjobs.cli.options import redis_option
from blockjobs.client.fleet import Fleet


@click.command()
@click.argument("job", metavar="JOB")
@click.option("--to", required=True, metavar="HOST", help="The host that takes over the job.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds for the end of the running attempt.",
)
@redis_option
def move(job: str, to: str, timeout: float, url: str | None) -> None:
    """Hand a job to another host that sees the same volumes under the same paths.

    The job comes to rest on its host and continues on the other host from the durable data; nothing is copied twice. A
    host that does not see the source and the staging file of the job is refused, and the job continues where it was.

    \b
    Example:
      blockjobs move nightly-20261122T103000Z.db1-data --to web2
    """
    with Fleet(url) as fleet:
        before = fleet.get(job).host
        status = fleet.move(job, to, timeout=timeout)
        click.echo(f"{job}: moved from {before} to {to}, {status}")
