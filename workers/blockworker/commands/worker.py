"""``worker``: the command that a service manager runs twice on every host."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from blockjobs.cli.service import set_up_service
from blockjobs.model.errors import BadInput
from blockjobs.model.ids import checked_host_name as host_name
from blockjobs.registry.connection import connect_client
from blockjobs.registry.fitness import expect_fit_server
from blockjobs.registry.format import expect_same_format
from blockjobs.settings import find_url
from blockworker.host.config import CONFIG, HostConfig, load_host_config
from blockworker.host.ownership import expect_owner_can_be_given


@click.command()
@click.option("--host", "name", required=True, help="The name of this host in the fleet.")
@click.option("--queue", type=click.Choice(["copy", "steps"]), required=True, help="The kind of worker: copy or steps.")
@click.option("--config", type=click.Path(path_type=Path), help="host.toml  [default: /etc/blockjobs/host.toml]")
@click.option("--redis", "url", help="URL of the registry  [default: BLOCKJOBS_REDIS_URL]")
def worker(name: str, queue: str, config: Path | None, url: str | None) -> None:
    """Run one of a host's two workers: copies, or steps (with heartbeat and watcher).

    Exit code 3: Redis does not answer, or a restart of Redis would lose acknowledged data.

    \b
    Example, as a service manager starts them:
      blockjobs worker --host web1 --queue copy
      blockjobs worker --host web1 --queue steps
    """
    from blockworker import app  # noqa: PLC0415 - Celery takes half a second to import: only who serves pays it

    set_up_service()
    settings, where = find_config(name, config), find_url(url)
    with connect_client(where) as client:
        expect_fit_server(client, where)
        expect_same_format(client)
    serve = app.serve_copies if queue == "copy" else app.serve_steps
    sys.exit(serve(where, settings))


def find_config(name: str, path: Path | None) -> HostConfig:
    """Read the configuration. Raises BadInput: it is of another host."""
    path = path or Path(CONFIG)
    config = load_host_config(path)
    if config.name != host_name(name):
        raise BadInput(f"{path}: name: it is of host '{config.name}', not of '{name}'")
    expect_owner_can_be_given(config.backup_owner, config.path)
    return config
