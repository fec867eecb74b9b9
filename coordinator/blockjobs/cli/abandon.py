"""``abandon``: give up a host lost for good."""

from __future__ import annotations

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.phrases import counted_noun
from blockjobs.client.fleet import Fleet


@click.command()
@click.argument("host")
@click.option("--yes", is_flag=True, help="Do not ask.")
@redis_option
def abandon(host: str, yes: bool, url: str | None) -> None:
    """End what a lost host still owes, for good.

    Its jobs fail with an error that says so. A transaction that is not decided aborts everywhere; of one that is, the
    other hosts' members are not touched. Should it come back after all, it removes, or publishes, what it had begun.

    A host that is merely down needs nothing of this: it settles when it is back.

    \b
    Example:
      blockjobs abandon web7 --yes
    """
    with Fleet(url) as fleet:
        if not yes:
            click.confirm(f"End all jobs of host {host} for good?", abort=True)
        click.echo(f"{host}: abandoned; {counted_noun(fleet.abandon(host), 'job')} ended")
