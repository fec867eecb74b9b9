"""``hosts``: which hosts there are, and how they are."""

from __future__ import annotations

import time

import click

from blockjobs.cli.daemons import redis_option
from blockjobs.cli.output import print_json, size
from blockjobs.cli.status import aligned
from blockjobs.cli.words import since
from blockjobs.client import Coordinator
from blockjobs.store.hosts import HostView

TITLES = ["HOST", "STATE", "SLOTS", "RUNNING", "QUEUED", "CPUS", "MEMORY", "SINCE"]


@click.command()
@click.option("--json", "json", is_flag=True, help="Print them as JSON.")
@redis_option
def hosts(json: bool, url: str | None) -> None:
    """List the hosts that have registered.

    \b
    Example:
      blockjobs hosts
    """
    with Coordinator(url) as here:
        found = list(here.hosts())
        if json:
            print_json([host.to_json() for host in found])
            return
        now = time.time()
        for text in aligned([TITLES, *(cells(host, now) for host in found)]) if found else ["no host has registered"]:
            click.echo(text)


def cells(host: HostView, now: float) -> list[str]:
    facts = host.facts
    memory = size(int(facts["memory"])) if "memory" in facts else ""
    return [
        host.name, host.state, str(host.slots), str(host.running), str(host.waiting), str(facts.get("cpus", "")),
        memory, since(host.since / 1000, now).removeprefix("since "),
    ]  # fmt: skip
