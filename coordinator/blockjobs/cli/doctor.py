"""``doctor``: problems of Redis, the daemons and the hosts, with advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click
import redis

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import naming_no_odd_records, print_json
from blockjobs.cli.phrases import counted_noun
from blockjobs.model.checkup import Finding, Level, worst_level
from blockjobs.model.errors import BadInput, NoRedis
from blockjobs.model.exits import Exit
from blockjobs.model.ids import Host
from blockjobs.model.volumespec import printable_text
from blockjobs.registry.address import redacted_url
from blockjobs.registry.connection import Client, connect_client
from blockjobs.registry.doors import Registry
from blockjobs.settings import URL, find_url

ANSWERS: Final = "redis: whether it answers"
COLORS = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "red"}


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--json", "json", is_flag=True, help="Print the findings as JSON.")
@redis_option
def doctor(hosts: tuple[str, ...], json: bool, url: str | None) -> int:
    """Check Redis, the daemons and the hosts (all, or the named HOSTs): one line for each finding.

    On each write root, small files are made and removed again, to find the abilities of the file system. Exit code 0:
    no error was found; 1: at least one error was found; 3: Redis does not answer.

    \b
    Example:
      blockjobs doctor
      blockjobs doctor web1 db1 --json
    """
    findings = []
    with naming_no_odd_records():  # odd records are findings already
        for finding in look_at_all([Host(host) for host in hosts], url):
            findings.append(finding)
            if not json:
                echo_finding(finding)
    if json:
        print_json([finding.to_json() for finding in findings])
    else:
        found = Counter(finding.level for finding in findings)
        click.echo(
            ", ".join(counted_noun(found[level], level, "ok" if level is Level.OK else "") for level in reversed(Level))
        )
    if findings[0].subject == ANSWERS and findings[0].level is Level.ERROR:
        return Exit.NO_REDIS
    return Exit.FAILED if worst_level(findings) is Level.ERROR else Exit.ALL


def look_at_all(hosts: Sequence[Host], url: str | None) -> Iterator[Finding]:
    """The findings; a single finding if Redis does not answer.

    Raises:
        BadInput: a host has not registered.
    """
    from blockjobs.ask.checkup import Checkup  # noqa: PLC0415 - Celery takes half a second to import
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415

    try:
        where = find_url(url)
        client = connect_client(where)
    except NoRedis as unusable:
        yield Finding(Level.ERROR, ANSWERS, str(unusable), f"correct --redis or {URL}")
        return
    with client:  # unchecked: wrong settings of Redis are findings
        if away := redis_failure(client):
            yield Finding(Level.ERROR, ANSWERS, f"Redis at {redacted_url(where)} does not answer: {away}", "start it")
            return
        registry = Registry(client)
        expect_known(registry, hosts)
        yield from Checkup(registry, Doorbell(where))(hosts)


def redis_failure(client: Client) -> str:
    """Why Redis answers no command at all; "" if Redis answers."""
    try:
        client.ping()
    except redis.exceptions.BusyLoadingError:  # a Redis that loads its data identifies itself
        return ""
    except (redis.ConnectionError, redis.TimeoutError) as error:
        return str(error)
    except redis.RedisError:
        return ""
    return ""


def expect_known(registry: Registry, hosts: Iterable[Host]) -> None:
    try:
        there = registry.hosts.known()
    except redis.RedisError:  # a finding of its own
        return
    if unknown := set(hosts) - set(there):
        known = ", ".join(there) or "none"
        raise BadInput(f"no host is named '{min(unknown)}'; one of those registered was expected ({known})")


def echo_finding(finding: Finding) -> None:
    level = click.style(f"{finding.level:<8}", fg=COLORS[finding.level])
    advice = f"  ->  {finding.advice}" if finding.advice else ""
    click.echo(f"{level}{printable_text(f'{finding.subject}: {finding.text}{advice}')}")
