"""``move``: let a job go on upon a different host."""

from __future__ import annotations

import click

from blockjobs.cli.options import redis_option
from blockjobs.client.fleet import Fleet


@click.command()
@click.argument("job", metavar="JOB")
@click.option("--to", required=True, metavar="HOST", help="The host that takes it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="How long its attempt may take to end.",
)
@redis_option
def move(job: str, to: str, timeout: float, url: str | None) -> None:
    """Hand a job to another host that sees the same volumes under the same paths.

    It comes to rest where it is and goes on there from what is durable; nothing is copied twice. A host that does not
    see its source and its staging file is refused, and the job goes on where it was.

    \b
    Example:
      blockjobs move nightly-20261122T103000Z.db1-data --to web2
    """
    with Fleet(url) as fleet:
        before = fleet.get(job).host
        status = fleet.move(job, to, timeout=timeout)
        click.echo(f"{job}: moved from {before} to {to}, {status}")
