"""``registry``: operations on the registry as a whole."""

from __future__ import annotations

import click

from blockjobs.cli.options import redis_option
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import Refused
from blockjobs.model.ids import Host


@click.group()
def registry() -> None:
    """Recover from a registry that lost data: Redis came back from an older copy of its data, or empty.

    \b
    Example:
      blockjobs registry accept-loss 1204
    """


@registry.command()
@click.argument("number", type=click.IntRange(min=1))
@click.option("--registry", "gone", metavar="REGISTRY", default="", help="The lost registry that this one replaces.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@redis_option
def accept_loss(number: int, gone: str, yes: bool, url: str | None) -> int:
    """Accept that every decision up to NUMBER that the registry does not know is lost, so that runs go on.

    Hosts, or the finalizer, know of decisions that this registry does not know: Redis came back from an older copy of
    its data, or empty. No transaction is decided with these hosts until the right data is back, or until this command
    accepts the loss. The next decision has a number above NUMBER. Files that earlier decisions published or removed
    stay as they are; transactions that the registry takes for undecided are decided anew.

    An empty registry counts as a different registry, and hosts refuse its decisions. --registry names the lost
    registry: every host that is up and has carried out decisions of the lost registry then accepts this registry.
    `blockjobs rescan` restores the history afterwards.

    Exit code 0: done; 1: at least one host did not accept this registry; 2: refused.

    \b
    Example:
      blockjobs registry accept-loss 1204
      blockjobs registry accept-loss --registry 5f0c1d9ab41e4c0f8e4e4dd2f6c4a1b7 1204
    """
    with Fleet(url) as fleet:
        if not yes:
            of = f" of registry {gone}" if gone else ""
            what = f"Give up for good what was decided{of} up to number {number} and is not known here?"
            click.confirm(what, abort=True)
        known = [*fleet.registry.hosts.known()]
        claims = fleet.registry.memory.claims_of(gone, known) if gone else {}
        if number < (highest := max(claims.values(), default=0)):
            raise Refused(f"a host knows decision {highest}: a number of at least that was expected, not {number}")
        click.echo(f"the next decision is number {fleet.accept_loss(number) + 1}")
        return replace_registry(fleet, sorted(claims), gone) if gone else 0


def replace_registry(fleet: Fleet, hosts: list[Host], gone: str) -> int:
    """Have hosts accept this registry in the place of another; return the exit code."""
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415 - Celery takes half a second to import
    from blockjobs.ask.replace import Replace  # noqa: PLC0415

    if not hosts:
        click.echo(f"no host says that it has carried out decisions of registry {gone}")
    code = 0
    for host, why in Replace(fleet.registry, Doorbell(fleet.url))(hosts, gone):
        click.echo(f"{host}: {why or 'carries out the decisions of this registry from now on'}")
        code = 1 if why else code
    return code
