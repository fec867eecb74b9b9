"""``sweep``: remove from hosts the files and cuts that no transaction of the registry owns."""

from __future__ import annotations

from typing import Final

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import aligned_lines, print_json
from blockjobs.cli.phrases import counted_noun
from blockjobs.cli.selection import named_hosts
from blockjobs.client.fleet import Fleet

COLUMNS: Final = ("host", "what", "path", "text")


@click.command()
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only list the leftovers; nothing is changed.")
@click.option(
    "--lost", metavar="REGISTRY", default="", help="Sweep the files of this registry as well, which is gone for good."
)
@click.option("--json", "json", is_flag=True, help="Print a list of host, what, path, transaction, state and text.")
@redis_option
def sweep(hosts: tuple[str, ...], dry_run: bool, lost: str, json: bool, url: str | None) -> int:
    """Remove leftover journals, staging files, cuts and reserved names that no transaction of the registry owns.

    Leftovers come from a lost registry or an abandoned host. Without HOST all hosts are swept. Files that the registry
    knows, or that a running copy uses, are never touched. Images with a decision to commit are published. A file
    without a journal is removed at the age of one day, if the name is of the form that blockjobs gives. Files of
    another registry stay and are listed with the name of that registry; --lost declares that registry lost for good.
    `blockjobs doctor` counts the leftovers.

    Exit code 0: no leftovers remain; 1: at least one leftover remains.

    \b
    Example:
      blockjobs sweep --dry-run
      blockjobs sweep web7
      blockjobs sweep web7 --lost 5f0c1d9ab41e4c0f8e4e4dd2f6c4a1b7
    """
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415 - Celery takes half a second to import
    from blockjobs.ask.sweep import Sweep  # noqa: PLC0415

    with Fleet(url) as fleet:
        known = {host.name: host.state for host in fleet.hosts()}
        wanted = named_hosts(hosts, known) or [host for host, state in known.items() if state == "up"]
        rows = list(Sweep(fleet.registry, Doorbell(fleet.url))(wanted, dry=dry_run, lost=lost))
    if json:
        print_json(rows)
    elif not rows:
        click.echo("nothing is left of transactions that the registry does not know")
    else:
        words = {"removed": "would be removed", "published": "would be published"} if dry_run else {}
        told = [[words.get(row["state"], row["state"]), *(row[name] for name in COLUMNS)] for row in rows]
        click.echo("\n".join(aligned_lines(told)))
        click.echo(counted_noun(len(rows), "finding") + (" (dry run: nothing was changed)" if dry_run else ""))
    return 1 if any(row["state"] == "left" for row in rows) else 0
