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
@click.option("--dry-run", is_flag=True, help="Only show what would be done; nothing is changed.")
@click.option("--lost", metavar="REGISTRY", default="", help="That registry is gone for good: sweep what it has begun.")
@click.option("--json", "json", is_flag=True, help="Print a list of host, what, path, transaction, state and text.")
@redis_option
def sweep(hosts: tuple[str, ...], dry_run: bool, lost: str, json: bool, url: str | None) -> int:
    """Remove journals, staging files, cuts and reserved names that no transaction of the registry owns.

    A registry that was lost leaves them, or a host that was abandoned. HOST: none is all of them. What the registry
    knows is never touched, nor what a copy is at work on. What was decided to be committed is published. A file that no
    journal names is removed once it is a day old, if its name is one of ours. What another registry has begun stays,
    and is told with that registry's name: --lost says that it will never come back. `blockjobs doctor` counts what
    there is.

    Exit code 0: nothing of it is left; 1: something was left where it is.

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
