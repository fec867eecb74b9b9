"""``registry``: what is done about the registry as a whole."""

from __future__ import annotations

import click

from blockjobs.cli.daemons import redis_option
from blockjobs.client import Coordinator


@click.group()
def registry() -> None:
    """Say what shall hold of a registry that came back older than it was.

    \b
    Example:
      blockjobs registry accept-loss 1204
    """


@registry.command()
@click.argument("number", type=click.IntRange(min=1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@redis_option
def accept_loss(number: int, yes: bool, url: str | None) -> None:
    """Go on with a registry that has lost decisions, up to NUMBER.

    Hosts, or the finalizer, know of decisions that this registry does not: Redis came back from an older copy of its
    data. Nothing is decided with them until the right data is brought back, or this command says that it is lost. The
    next decision has a number beyond NUMBER. What was carried out stays as it is on the disks; what the registry takes
    for undecided is decided anew.

    \b
    Example:
      blockjobs registry accept-loss 1204
    """
    with Coordinator(url) as here:
        if not yes:
            click.confirm(f"Give up for good what was decided up to number {number} and is not known here?", abort=True)
        click.echo(f"the next decision is number {here.accept_loss(number) + 1}")
