"""The commands that run one process of the control plane, as a service manager or ``up`` starts them."""

from __future__ import annotations

import click

from blockjobs.cli.output import start_logging
from blockjobs.settings import find_url
from blockjobs.store.connection import check, connect
from blockjobs.store.registry import Registry

redis_option = click.option("--redis", "url", help="URL of the registry  [default: BLOCKJOBS_REDIS_URL]")


@click.command()
@redis_option
def coordinator(url: str | None) -> None:
    """Run the coordinator: it rings hosts, judges who is alive, and recovers what was forgotten."""
    # Celery takes half a second to import; only who serves pays it.
    from blockjobs.daemons import loop  # noqa: PLC0415
    from blockjobs.daemons.coordinator import Coordinator  # noqa: PLC0415
    from blockjobs.daemons.doorbell import Doorbell  # noqa: PLC0415

    start_logging()
    where = find_url(url)
    client = connect(where)
    check(client, where)
    daemon = Coordinator(Registry(client), Doorbell(where))
    loop.run("coordinator", daemon.once, loop.stop_on_signals())


@click.command()
@redis_option
def finalizer(url: str | None) -> None:
    """Run the finalizer: deferred completion, and the commit or abort of every transaction."""
    from blockjobs.daemons import loop  # noqa: PLC0415
    from blockjobs.daemons.doorbell import Doorbell  # noqa: PLC0415
    from blockjobs.daemons.finalizer import Finalizer  # noqa: PLC0415

    start_logging()
    where = find_url(url)
    client = connect(where)
    check(client, where)
    daemon = Finalizer(Registry(client), Doorbell(where))
    loop.run("finalizer", daemon.once, loop.stop_on_signals())
