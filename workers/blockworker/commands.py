"""The commands of the data plane; they join ``blockjobs`` by entry point."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from blockjobs.cli.output import complain, start_logging
from blockjobs.model.errors import BadInput, BlockjobsError
from blockjobs.model.ids import host as host_name
from blockjobs.settings import Settings, find_url
from blockjobs.store.connection import check, connect
from blockworker.host import HostConfig, load
from blockworker.targets import manifest


@click.command()
@click.option("--host", "name", required=True, help="The name of this host in the fleet.")
@click.option("--queue", type=click.Choice(["copy", "steps"]), required=True, help="Which of a host's two workers.")
@click.option("--config", type=click.Path(path_type=Path), help="host.toml  [default: /etc/blockjobs/host.toml]")
@click.option("--redis", "url", help="URL of the registry  [default: BLOCKJOBS_REDIS_URL]")
def worker(name: str, queue: str, config: Path | None, url: str | None) -> None:
    """Run one of a host's two workers: copies, or steps (with heartbeat and watcher).

    \b
    Example, as a service manager starts them:
      blockjobs worker --host web1 --queue copy
      blockjobs worker --host web1 --queue steps
    """
    from blockworker import app  # noqa: PLC0415 - Celery takes half a second to import: only who serves pays it

    start_logging()
    settings, where = find_config(name, config), find_url(url, Settings())
    with connect(where) as client:
        check(client, where)
    serve = app.serve_copies if queue == "copy" else app.serve_steps
    sys.exit(serve(where, settings))


def find_config(name: str, path: Path | None) -> HostConfig:
    """The host's configuration, which has to be this host's."""
    path = path or Path("/etc/blockjobs/host.toml")
    config = load(path)
    if config.name != host_name(name):
        raise BadInput(f"{path}: name: it is of host '{config.name}', not of '{name}'")
    return config


@click.command()
@click.argument("targets", nargs=-1, required=True, type=click.Path(path_type=Path))
def verify(targets: tuple[Path, ...]) -> None:
    """Compare published images on this machine with their manifests, chunk by chunk.

    Exit code 0: all are as they were copied; 1: one differs; 2: one cannot be compared.

    \b
    Example:
      blockjobs verify /backup/nightly-20261122T103000Z/root.img
    """
    codes = set()
    for target in targets:
        try:
            record = manifest.load(f"{target}.manifest.json")
            differing = manifest.verify(os.fspath(target), record)
        except BlockjobsError as wrong:  # what cannot be read does not keep the others from it
            complain(str(wrong))
            codes.add(wrong.exit_code)
            continue
        for start, end in differing:
            click.echo(f"{target}: bytes {start} to {end} differ from the manifest")
        if not differing:
            click.echo(f"{target}: {record['size']} bytes as in the manifest")
        codes.add(1 if differing else 0)
    sys.exit(1 if 1 in codes else max(codes))
