"""The commands that run a process of the control plane, for a service manager or ``up``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blockjobs.cli.service import set_up_service
from blockjobs.model.errors import BadInput
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.registry.fitness import expect_fit_server
from blockjobs.registry.format import raise_format
from blockjobs.settings import absolute_path, find_url, read_settings

if TYPE_CHECKING:
    from blockjobs.ask.doorbell import Doorbell
    from blockjobs.qmp.server import Tls
from blockjobs.cli.options import redis_option


@click.command()
@redis_option
@click.option("--qmp", type=click.Path(path_type=Path), metavar="PATH", help="Serve QMP on this Unix socket.")
@click.option("--qmp-tcp", metavar="ADDR:PORT", help="Serve QMP over TLS here; needs the three --tls options.")
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="Certificate of this server.")
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Private key of the certificate.")
@click.option("--tls-ca", type=click.Path(path_type=Path), metavar="FILE", help="Authority of the allowed clients.")
def coordinator(
    *,
    url: str | None,
    qmp: Path | None,
    qmp_tcp: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
) -> None:
    """Run the coordinator: start waiting jobs, judge hosts, recover lost work, and send notifications.

    Webhooks are signed if BLOCKJOBS_NOTIFY_SECRET or BLOCKJOBS_NOTIFY_SECRET_FILE is set. Records of runs are kept for
    BLOCKJOBS_KEEP_RUNS_DAYS (90), and events for BLOCKJOBS_KEEP_EVENTS_DAYS (7). A run needs attention when a job is
    held for BLOCKJOBS_HELD_MINUTES (30), a host owes an answer for BLOCKJOBS_OWES_MINUTES (10), or jobs wait beside
    free slots for BLOCKJOBS_IDLE_MINUTES (15). Exit code 3: Redis does not answer, or a restart of Redis would lose
    acknowledged data.
    """
    # Celery takes half a second to import; only serving commands pay.
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415
    from blockjobs.ask.prune import PruneRequest  # noqa: PLC0415
    from blockjobs.daemons import loop  # noqa: PLC0415
    from blockjobs.daemons.coordinator import Coordinator  # noqa: PLC0415
    from blockjobs.daemons.merger import run_merger_beside  # noqa: PLC0415
    from blockjobs.daemons.notifier import run_notifier_beside  # noqa: PLC0415
    from blockjobs.daemons.pruner import PruneThread  # noqa: PLC0415

    set_up_service()
    settings = read_settings()
    where = find_url(url, settings)
    client = connect_client(where)
    expect_fit_server(client, where)
    raise_format(client)
    qmp_over = tls_settings(
        qmp_tcp, tls_cert, tls_key, tls_ca
    )  # before the start of anything: the options may be refused
    doorbell, registry = Doorbell(where), Registry(client, internal=True)
    with closing(PruneThread(registry, PruneRequest(registry, Doorbell(where)))) as pruner:
        daemon = Coordinator(registry, doorbell, pruner.wake, *settings.keep)
        pruner.start()
        told = run_notifier_beside(where, settings.delays, settings.secret, settings.thresholds)
        with run_merger_beside(where), serving_qmp(where, doorbell, qmp, qmp_over), told:
            loop.run_daemon("coordinator", daemon.once, loop.stop_on_signals())


def tls_settings(where: str | None, certificate: Path | None, key: Path | None, authority: Path | None) -> Tls | None:
    """The TLS settings of the options; None without ``--qmp-tcp``."""
    if where is None:
        return None
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise BadInput(f"--qmp-tcp {where}: ADDR:PORT was expected")
    if certificate is None or key is None or authority is None:
        raise BadInput("--qmp-tcp needs --tls-cert, --tls-key and --tls-ca: who may connect may do everything")
    from blockjobs.qmp.server import Tls  # noqa: PLC0415

    return Tls(host.strip("[]"), int(port), certificate, key, authority)


@contextmanager
def serving_qmp(url: str, doorbell: Doorbell, path: Path | None, over: Tls | None) -> Iterator[None]:
    """Serve QMP during the context, if a socket or TLS is given."""
    if path is None and over is None:
        yield
        return
    from blockjobs.ask.probe import Probe  # noqa: PLC0415
    from blockjobs.ask.resize import Resize  # noqa: PLC0415
    from blockjobs.client.fleet import Fleet  # noqa: PLC0415
    from blockjobs.qmp.fleet import Backend  # noqa: PLC0415
    from blockjobs.qmp.server import QmpServer  # noqa: PLC0415

    with Fleet(url) as fleet:
        backend = Backend(fleet, Probe(fleet.registry, doorbell), Resize(fleet.registry, doorbell))
        server = QmpServer(backend, path and absolute_path(path, "--qmp"), over)
        server.start()
        try:
            yield
        finally:
            server.close()


@click.command()
@redis_option
@click.option(
    "--state",
    envvar="STATE_DIRECTORY",
    metavar="DIR",
    help="Where it keeps the number of the last decision, to know a registry that came back older.  "
    "[default: STATE_DIRECTORY, which systemd sets]",
)
def finalizer(url: str | None, state: str | None) -> None:
    """Run the finalizer: open transactions, decide on commit or abort, and end runs.

    Exit code 3: Redis does not answer, or a restart of Redis would lose acknowledged data.
    """
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415
    from blockjobs.daemons import loop  # noqa: PLC0415
    from blockjobs.daemons.finalizer import Finalizer  # noqa: PLC0415
    from blockjobs.daemons.remembered import Remembered, find_place  # noqa: PLC0415

    set_up_service()
    where = find_url(url)
    client = connect_client(where)
    expect_fit_server(client, where)
    raise_format(client)
    remembered = Remembered(find_place(state) if state else None)
    daemon = Finalizer(Registry(client, internal=True), Doorbell(where), remembered=remembered)
    loop.run_daemon("finalizer", daemon.once, loop.stop_on_signals())
