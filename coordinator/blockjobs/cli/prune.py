"""``prune``: remove the targets of earlier runs not kept by a rule, or show these targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import aligned_lines, print_json
from blockjobs.cli.phrases import counted_noun
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import Refused
from blockjobs.model.keep import NO_RULE

if TYPE_CHECKING:
    from blockjobs.ask.prune import PruneOutcome


@click.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only list the targets to prune; nothing is changed.")
@click.option("--yes", is_flag=True, help="Apply the rules to backups found by a rescan without a question.")
@click.option("--json", "json", is_flag=True, help="Print it as JSON; docs/history.md has the fields.")
@redis_option
def prune(name: str, dry_run: bool, yes: bool, json: bool, url: str | None) -> int:
    """Remove the targets of earlier runs of NAME that no rule keeps.

    The rules are those of the last run that committed (keep: {last, daily, weekly, monthly} of a transaction). The last
    good backup of each job always stays, and so does every backup that another backup depends on. After a run that
    commits, the coordinator prunes by itself.

    Backups found by `blockjobs rescan` stay until this command was confirmed once: it shows the backups that it would
    prune, and asks. --dry-run shows the same list.

    Exit code 0: every target that no rule keeps was pruned; 1: at least one target could not be pruned.

    \b
    Example:
      blockjobs prune nightly --dry-run
      blockjobs prune nightly
    """
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415 - Celery takes half a second to import
    from blockjobs.ask.prune import PruneRequest, prune_summary  # noqa: PLC0415

    with Fleet(url) as fleet:
        if not any(run.name == name for run in fleet.runs()):
            raise Refused(f"no run is named '{name}'; `blockjobs history` lists them all")
        pruning = PruneRequest(fleet.registry, Doorbell(fleet.url))
        held = len(pruning.held(name))
        if held and not dry_run and not yes:
            would = pruning(name, dry=True, confirmed=True)
            click.echo("\n".join(prune_table(would, dry=True)), err=json)
            backups = counted_noun(held, "backup")
            what = f"{name}: a rescan found {backups}, and these rules hold for them from now on: go on?"
            click.confirm(what, abort=True, err=json)
        outcomes = pruning(name, dry=dry_run, confirmed=held > 0)
    left = any(outcome.state == "left" for outcome in outcomes)
    if json:
        print_json({"name": name, "dry-run": dry_run, "targets": [outcome.to_json() for outcome in outcomes]})
    elif not outcomes:
        click.echo(f"{name}: no backup of this name is published")
    else:
        click.echo("\n".join(prune_table(outcomes, dry=dry_run)))
        click.echo(f"{name}: {prune_summary(outcomes)}" + (" (dry run: nothing was changed)" if dry_run else ""))
    return 1 if left else 0


def prune_table(outcomes: Sequence[PruneOutcome], *, dry: bool) -> list[str]:
    """A line per target."""
    words = {"pruned": "would be pruned", "gone": "is gone"} if dry else {"gone": "was gone"}
    rows = [
        [words.get(each.state, each.state), each.target.run, f"{each.target.host}:{each.target.path}",
         "no rule of what to keep" if each.why == NO_RULE else each.why]
        for each in outcomes
    ]  # fmt: skip
    return list(aligned_lines(rows))
