"""``pause-all`` and ``resume-all``: hold every existing job, and later release exactly the held jobs."""

from __future__ import annotations

import click

from blockjobs.cli.options import cause_option, for_option, redis_option, user_and_machine
from blockjobs.cli.phrases import counted_noun
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import Refused
from blockjobs.registry.holds import ALL


@click.command("pause-all")
@click.argument("name", required=False, default="")
@cause_option
@for_option
@redis_option
def pause_all(name: str, cause: str, seconds: float | None, url: str | None) -> None:
    """Hold every job that exists now; jobs submitted later are not held.

    \b
    Example:
      blockjobs pause-all firmware --cause 'switch firmware' --for 3600
    """
    with Fleet(url) as fleet:
        name, held = fleet.pause_all(name, cause=cause, owner=user_and_machine(), seconds=seconds or 0.0)
    click.echo(f"{name}: {counted_noun(held, 'job')} held; to lift it: blockjobs resume-all {name}")


@click.command("resume-all")
@click.argument("name", required=False, default="")
@redis_option
def resume_all(name: str, url: str | None) -> None:
    """Release every job held by a pause-all.

    NAME may be left out if only one pause-all is in force.

    \b
    Example:
      blockjobs resume-all firmware
    """
    with Fleet(url) as fleet:
        if not name:
            names = [each.reason.removeprefix(ALL) for each in fleet.holding() if each.reason.startswith(ALL)]
            if len(names) != 1:
                raise Refused(f"which one? {', '.join(names)}" if names else "nothing was paused by a pause-all")
            (name,) = names
        click.echo(f"{name}: no longer holds {counted_noun(fleet.resume_all(name), 'job')}")
