"""``hosts``: the registered hosts, with states."""

from __future__ import annotations

import time

import click

from blockjobs.cli.job_options import SizeType
from blockjobs.cli.options import redis_option, user_and_machine
from blockjobs.cli.output import aligned_lines, print_json
from blockjobs.cli.phrases import counted_noun, hanging_path_text, since_text
from blockjobs.cli.phrases import speed_text as speed_of
from blockjobs.client.fleet import Fleet
from blockjobs.model.liveness import describe_absence
from blockjobs.model.numbers import size_text
from blockjobs.registry.holds import DRAIN
from blockjobs.registry.hostnames import Carried
from blockjobs.registry.hosts import HostView

START = "systemctl start blockjobs-worker@{}"
TITLES = ["HOST", "STATE", "SLOTS", "RUNNING", "QUEUED", "SPEED", "CPUS", "MEMORY", "SINCE"]


@click.group(invoke_without_command=True)
@click.option("--json", "json", is_flag=True, help="Print them as JSON.")
@redis_option
@click.pass_context
def hosts(context: click.Context, json: bool, url: str | None) -> None:
    """List the hosts that have registered.

    \b
    Example:
      blockjobs hosts
      blockjobs hosts set web1 --speed 100MiB
      blockjobs hosts rename web1 web01
      blockjobs hosts remove web7
    """
    if context.invoked_subcommand is not None:
        return
    with Fleet(url) as fleet:
        found = list(fleet.hosts())
        drained = {each.reason.removeprefix(DRAIN) for each in fleet.holding() if each.reason.startswith(DRAIN)}
        if json:
            print_json([host.to_json() | {"drained": host.name in drained} for host in found])
            return
        now = time.time()
        rows = [host_cells(host, now, drained=host.name in drained) for host in found]
        for text in aligned_lines([TITLES, *rows]) if rows else ["no host has registered"]:
            click.echo(text)
        for host in found:
            if host.state != "left":
                for absence in host.absent:
                    at = since_text(absence.since / 1000, now)
                    click.echo(f"{host.name}: {describe_absence(absence)} {at}: {START.format(absence.worker)} there")
            for each in host.hanging:
                click.echo(f"{host.name}: {hanging_path_text(each, now)}")
            for left in host.facts.get("undefined", ()):
                at = since_text(left["since"], now)
                click.echo(
                    f"{host.name}: {left['device']} is undefined: job '{left['job']}' writes to it, or gave up, {at}"
                )


@hosts.command("set")
@click.argument("host")
@click.option(
    "--speed",
    type=SizeType(),
    required=True,
    help="Bytes a second of all copies of the host together, e.g. 100MiB; 0: no limit.",
)
@redis_option
def set_(host: str, speed: int, url: str | None) -> None:
    """Limit the bytes a second of all copies of a host together; running copies follow within a second.

    The number of copies that a host runs at once is a setting of the host, in host.toml.

    \b
    Example:
      blockjobs hosts set web1 --speed 100MiB
    """
    with Fleet(url) as fleet:
        before = fleet.set_host(host, speed=speed, by=user_and_machine())
    click.echo(f"{host}: {speed_of(speed)} (was {speed_of(before)})")


@hosts.command()
@click.argument("old")
@click.argument("new")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@redis_option
def rename(old: str, new: str, yes: bool, url: str | None) -> None:
    """Move every record of host OLD to its NEW name, and forget OLD.

    History, backups, jobs on record, sizes, limits, drains and named volumes move to the new name. The command is for
    the same machine under another name: stop the workers of OLD, move the state directory, set the name in host.toml,
    start the workers. Refused while a worker of OLD runs, while OLD has unfinished jobs, and if NEW has records of its
    own. The command may be repeated.

    \b
    Example:
      blockjobs hosts rename web1 web01
    """
    with Fleet(url) as fleet:
        if not yes:
            click.confirm(f"Carry everything of host {old} to {new}, and forget {old}?", abort=True)
        click.echo(f"{old} is called {new}: {carried_text(fleet.rename_host(old, new, by=user_and_machine()))}")


@hosts.command()
@click.argument("host")
@click.option("--with-history", is_flag=True, help="Forget the records of backups on the host, too.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@redis_option
def remove(host: str, with_history: bool, yes: bool, url: str | None) -> None:
    """Forget a host for good; on its disks nothing is touched.

    Refused while a worker of the host runs, while the host has unfinished jobs (`blockjobs abandon HOST` ends them),
    and, without --with-history, while backups of the host are on record. Jobs on record are dismissed. A host that
    registers again is a new host; `blockjobs rescan HOST` finds its backups.

    \b
    Example:
      blockjobs hosts remove web7
      blockjobs hosts remove web7 --with-history --yes
    """
    with Fleet(url) as fleet:
        if not yes:
            also = ", and its backups in the history" if with_history else ""
            click.confirm(f"Forget host {host}{also}, for good?", abort=True)
        carried = fleet.remove_host(host, with_history=with_history, by=user_and_machine())
        click.echo(f"{host} is forgotten: {carried_text(carried)}")


def carried_text(what: Carried) -> str:
    """``2 jobs on record, 5 backups, 0 named volumes``."""
    volumes = counted_noun(what.volumes, "named volume")
    return f"{counted_noun(what.jobs, 'job')} on record, {counted_noun(what.backups, 'backup')}, {volumes}"


def host_cells(host: HostView, now: float, *, drained: bool = False) -> list[str]:
    facts = host.facts
    memory = size_text(int(facts["memory"])) if "memory" in facts else ""
    return [
        host.name,
        host.state + ", drained" * drained,
        str(host.slots),
        str(host.running),
        str(host.waiting),
        speed_of(host.speed) if host.speed else "",
        str(facts.get("cpus", "")),
        memory,
        since_text(host.since / 1000, now).removeprefix("since "),
    ]
