"""``abandon``: give up a host lost for good."""

from __future__ import annotations

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.phrases import counted_noun
from blockjobs.client.fleet import Fleet


@click.command()
@click.argument("host")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@redis_option
def abandon(host: str, yes: bool, url: str | None) -> None:
    """End the open work of a lost host, for good.

    The jobs of the host fail with an error that names the cause. Undecided transactions abort on every host; where a
    transaction is decided, the members on other hosts stay as they are. A host that comes back after all removes or
    publishes the files that it had begun, as decided.

    A host that is only down for a while needs no `abandon`: the host settles its transactions when it is back.

    \b
    Example:
      blockjobs abandon web7 --yes
    """
    with Fleet(url) as fleet:
        if not yes:
            click.confirm(f"End all jobs of host {host} for good?", abort=True)
        click.echo(f"{host}: abandoned; {counted_noun(fleet.abandon(host), 'job')} ended")
