"""``doctor``: what is wrong with Redis, the daemons and the hosts, and what to do about it."""

from __future__ import annotations

from collections import Counter

import click

from blockjobs.cli.daemons import redis_option
from blockjobs.cli.output import print_json
from blockjobs.cli.words import count
from blockjobs.model.checkup import Finding, Level, worst
from blockjobs.model.errors import BadInput, NoRedis
from blockjobs.model.ids import Host
from blockjobs.model.volumespec import printable
from blockjobs.settings import find_url
from blockjobs.store.address import redacted
from blockjobs.store.connection import connect
from blockjobs.store.registry import Registry

COLORS = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "red"}


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--json", "json", is_flag=True, help="Print the findings as JSON.")
@redis_option
def doctor(hosts: tuple[str, ...], json: bool, url: str | None) -> int:
    """Look at Redis, the daemons and the hosts (all, or those named): one line a finding.

    On each write root, tiny files are made and removed again, to see what its file system can do.
    Exit code 0: no error was found; 1: one was; 3: Redis does not answer.

    \b
    Example:
      blockjobs doctor
      blockjobs doctor web1 db1 --json
    """
    from blockjobs.daemons.checkup import Checkup  # noqa: PLC0415 - Celery takes half a second to import
    from blockjobs.daemons.doorbell import Doorbell  # noqa: PLC0415

    where = find_url(url)
    with connect(where) as client:  # not checked: a Redis that is set up wrongly is a finding
        if not client.ping():
            raise NoRedis(f"Redis at {redacted(where)} does not answer")
        registry = Registry(client)
        if unknown := set(hosts) - set(registry.hosts.known()):
            known = ", ".join(registry.hosts.known()) or "none"
            raise BadInput(f"no host is named '{min(unknown)}'; one of those registered was expected ({known})")
        findings = []
        for finding in Checkup(registry, Doorbell(where))([Host(host) for host in hosts]):
            findings.append(finding)
            if not json:
                show(finding)
    if json:
        print_json([finding.to_json() for finding in findings])
    else:
        found = Counter(finding.level for finding in findings)
        click.echo(
            ", ".join(count(found[level], level, "ok" if level is Level.OK else "") for level in reversed(Level))
        )
    return 1 if worst(findings) is Level.ERROR else 0


def show(finding: Finding) -> None:
    level = click.style(f"{finding.level:<8}", fg=COLORS[finding.level])
    advice = f"  ->  {finding.advice}" if finding.advice else ""
    click.echo(f"{level}{printable(f'{finding.subject}: {finding.text}{advice}')}")
