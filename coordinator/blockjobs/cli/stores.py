"""``stores``: places for targets, and the fleet's budgets for these places, changed while the fleet runs."""

from __future__ import annotations

import click

from blockjobs.cli.job_options import SizeType
from blockjobs.cli.options import redis_option, user_and_machine
from blockjobs.cli.output import aligned_lines, print_json
from blockjobs.cli.phrases import speed_text as in_words
from blockjobs.client.fleet import Fleet
from blockjobs.model.numbers import size_text
from blockjobs.registry.limits import StoreView

TITLES = ["STORE", "COPIES", "WAITING", "FLOWS", "SPEED", "PATH", "AS SAID BY"]


@click.group(invoke_without_command=True)
@click.option("--json", "json", is_flag=True, help="Print them as JSON.")
@redis_option
@click.pass_context
def stores(context: click.Context, json: bool, url: str | None) -> None:
    """List the stores of run files: running and waiting copies, data flow, and limits.

    \b
    Example:
      blockjobs stores
      blockjobs stores set nas1 --jobs 4 --speed 400MiB
      blockjobs stores remove nas1
    """
    if context.invoked_subcommand is not None:
        return
    with Fleet(url) as fleet:
        found = fleet.stores()
        alive = fleet.registry.hosts.daemons()["coordinator"]
    if json:
        print_json([store.to_json() for store in found])
        return
    rows = [store_cells(store, alive=alive) for store in found]
    for text in aligned_lines([TITLES, *rows]) if rows else ["no run file has defined a store"]:
        click.echo(text)


def store_cells(store: StoreView, *, alive: bool = True) -> list[str]:
    copies = f"{store.running} of {store.jobs}" if store.jobs else str(store.running)
    flows = f"{size_text(store.flow)}/s" if alive else "unknown"  # without a coordinator the flow is not measured
    return [store.name, copies, str(store.waiting), flows, in_words(store.speed), store.path, store.by]


@stores.command("set")
@click.argument("name")
@click.option("--jobs", type=click.IntRange(min=0, max=100_000), help="Number of copies at once; 0: any number.")
@click.option("--speed", type=SizeType(), help="Bytes a second from all hosts together, e.g. 400MiB; 0: no limit.")
@redis_option
def set_(name: str, jobs: int | None, speed: int | None, url: str | None) -> None:
    """Change the limits of a store; running copies follow within a second.

    The next run with a definition of the store in its file sets the limits again.

    \b
    Example:
      blockjobs stores set nas1 --speed 400MiB
      blockjobs stores set nas1 --jobs 0
    """
    if jobs is None and speed is None:
        raise click.UsageError("--jobs, --speed or both were expected")
    with Fleet(url) as fleet:
        jobs_before, speed_before = fleet.set_store(name, jobs=jobs, speed=speed, by=user_and_machine())
        now = fleet.store(name)
    told = []
    if jobs is not None:
        told.append(f"{copies_text(now.jobs)} at once (was {copies_text(jobs_before)})")
    if speed is not None:
        told.append(f"{in_words(now.speed)} (was {in_words(speed_before)})")
    click.echo(f"{name}: {', '.join(told)}")


@stores.command()
@click.argument("name")
@redis_option
def remove(name: str, url: str | None) -> None:
    """Forget a store; files in the store are not touched. Refused while an unfinished job uses the store.

    The next run with a definition of the store in its file brings the store back.

    \b
    Example:
      blockjobs stores remove nas1
    """
    with Fleet(url) as fleet:
        fleet.remove_store(name, by=user_and_machine())
    click.echo(f"{name}: forgotten; the files in the store were not touched")


def copies_text(limit: int) -> str:
    return f"{limit} cop{'y' if limit == 1 else 'ies'}" if limit else "any number of copies"
