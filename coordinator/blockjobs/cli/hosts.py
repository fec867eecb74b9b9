"""``hosts``: which hosts there are, and how they are."""

from __future__ import annotations

import time

import click

from blockjobs.cli.daemons import redis_option
from blockjobs.cli.output import print_json, size
from blockjobs.cli.status import aligned
from blockjobs.cli.words import since
from blockjobs.client import Coordinator
from blockjobs.store.holds import DRAIN
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
        drained = {each.reason.removeprefix(DRAIN) for each in here.holding() if each.reason.startswith(DRAIN)}
        if json:
            print_json([host.to_json() | {"drained": host.name in drained} for host in found])
            return
        now = time.time()
        rows = [cells(host, now, drained=host.name in drained) for host in found]
        for text in aligned([TITLES, *rows]) if rows else ["no host has registered"]:
            click.echo(text)
        for host in found:
            for left in host.facts.get("undefined", ()):
                at = since(left["since"], now)
                click.echo(
                    f"{host.name}: {left['device']} is undefined: job '{left['job']}' writes to it, or gave up, {at}"
                )


def cells(host: HostView, now: float, *, drained: bool = False) -> list[str]:
    facts = host.facts
    memory = size(int(facts["memory"])) if "memory" in facts else ""
    return [
        host.name, host.state + ", drained" * drained, str(host.slots), str(host.running), str(host.waiting),
        str(facts.get("cpus", "")), memory, since(host.since / 1000, now).removeprefix("since "),
    ]  # fmt: skip
