"""``wait``: return when runs and jobs are concluded."""

from __future__ import annotations

from functools import partial
from typing import Final

import click

from blockjobs.cli.follow import Seconds, patience_option
from blockjobs.cli.options import redis_option
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.selection import is_glob, select_runs_and_jobs
from blockjobs.client.event_stream import Patience
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import NoSuchRun
from blockjobs.model.ids import RunId
from blockjobs.model.policies import Verdict, replaced_text
from blockjobs.registry.odd import Unreadable

WORDS: Final = {
    Verdict.ALL: "succeeded",
    Verdict.PARTIAL: "partly succeeded, accepted by the run file",
    Verdict.FAILED: "failed or cancelled",
}


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--timeout", type=Seconds(min=0), metavar="S", help="Give up after so many seconds.")
@patience_option
@redis_option
def wait(ids: tuple[str, ...], timeout: float | None, patience: float, url: str | None) -> int:
    """Wait until every ID is concluded.

    Exit code 0: every ID succeeded; 1: at least one ID failed or was cancelled; 4: a run partly succeeded, accepted by
    its run file; 5: the time of --timeout passed before the end of every ID; 6: an ID is gone from the registry; 7:
    Redis was away for longer than --patience.

    \b
    Example:
      blockjobs wait nightly-20261122T103000Z --timeout 3600
    """
    bear_lost_output()
    with Fleet(url) as fleet:
        wanted: dict[str, None] = {}
        for text in ids:
            chosen = select_runs_and_jobs(fleet, text)
            wanted |= dict.fromkeys([text] if not is_glob(text) else [str(place.job) for place in chosen.jobs])
        outcome = fleet.wait(wanted, timeout, patience=patience)
        sight = Patience(patience, what=", ".join(wanted))
        ends = {each: sight.ask(partial(final_verdict, fleet, each, succeeded=done)) for each, done in outcome.items()}
        replaced = sight.ask(lambda: fleet.registry.views.replaced(map(RunId, ends)))
        words = {run: f"skipped: {replaced_text(by)}" for run, by in replaced.items()}
    for each, end in ends.items():
        click.echo(f"{each}: {words.get(RunId(each), WORDS[end])}")
    return next((int(end) for end in (Verdict.FAILED, Verdict.PARTIAL) if end in ends.values()), 0)


def final_verdict(fleet: Fleet, name: str, *, succeeded: bool) -> Verdict:
    """The verdict on a run by its file's policies; a job only succeeds or fails."""
    try:
        return fleet.verdict(name)
    except (NoSuchRun, Unreadable):
        return Verdict.ALL if succeeded else Verdict.FAILED
