"""``status``: the state of runs and jobs, once or (``--watch``) continuously."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import click

from blockjobs.cli.board import Board, Row
from blockjobs.cli.follow import Detach, add_run_to_board, follow_board, patience_option, shown_progress
from blockjobs.cli.options import redis_option
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import aligned_lines, duration_as_clock, print_json
from blockjobs.cli.phrases import since_text, speed_text, time_of_day
from blockjobs.cli.selection import Selection, select_runs_and_jobs
from blockjobs.cli.standing import needs_of_run, run_heading, runs_as_json
from blockjobs.cli.why import absent_hosts_owing
from blockjobs.client.event_stream import Patience, Stream
from blockjobs.client.fleet import Fleet
from blockjobs.model.exits import Exit
from blockjobs.model.ids import RunId
from blockjobs.model.numbers import size_text
from blockjobs.model.policies import transaction_name
from blockjobs.model.states import ACCEPTS, Status, Verb
from blockjobs.registry.holds import Holding
from blockjobs.registry.views import JobPlace, JobView, RunView, TxnView

LAST: Final = 5  # ended runs shown when nothing is asked for
BRIEF: Final = 20  # jobs of a run shown when nothing is asked for
PAGE: Final = 500  # lines laid out together


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--watch", is_flag=True, help="Stay, and show changes until every run is over, or Ctrl-C.")
@click.option("--json", "json", is_flag=True, help="Print runs, transactions and jobs as JSON.")
@patience_option
@redis_option
def status(ids: tuple[str, ...], watch: bool, json: bool, patience: float, url: str | None) -> int:
    """Show the state of runs and jobs.

    ID is a run, a job or a quoted glob; without an ID: every unfinished run, and the last few runs.

    Exit code 0: shown. With --watch, 6: a run is gone from the registry; 7: Redis was away for longer than --patience.

    \b
    Example:
      blockjobs status
      blockjobs status nightly-20261122T103000Z --watch
      blockjobs status 'nightly-*.db1-*' --json
    """
    if watch and json:
        raise click.UsageError("--watch and --json exclude each other; `blockjobs events --follow --json` streams")
    with Fleet(url) as fleet:
        if watch:
            return watch_runs(fleet, ids, patience)
        chosen = [select_runs_and_jobs(fleet, text) for text in ids]
        places = list(dict.fromkeys(place for each in chosen for place in each.jobs))
        if json:
            runs = runs_of(fleet, chosen) if ids else [*last_ended_runs(fleet), *unfinished_runs(fleet)]
            print_json(runs_as_json(fleet, runs, places if ids else None))
        elif ids:
            whole = list(dict.fromkeys(run for each in chosen for run in each.runs))
            for run in whole:
                show_run(fleet, run, most=0)
            inside = fleet.glances.runs_of({place.transaction for place in places})
            print_jobs(fleet, [place for place in places if inside.get(place.transaction) not in whole])
        else:
            show_all(fleet)
    return 0


def watch_runs(fleet: Fleet, ids: Sequence[str], patience: float) -> int:
    """Follow runs; without ids also runs started meanwhile."""
    bear_lost_output()
    seq = fleet.registry.events.last()
    board = Board()
    chosen = [select_runs_and_jobs(fleet, text) for text in ids]
    for run in runs_of(fleet, chosen) if ids else unfinished_runs(fleet):
        add_run_to_board(fleet, board, run)
    with Detach() as leave, shown_progress() as show_:
        sight = Patience(patience, show_.say, ", ".join(board.runs) or "the fleet")
        follow_board(
            fleet,
            board,
            Stream(fleet.registry, seq, sight),
            show_,
            until=lambda: bool(leave.asked) or (bool(ids) and board.ended),
            joins=lambda _: not ids,
        )
    return Exit.GONE if ids and board.gone else Exit.ALL


# --- selection of runs ----------------------------------------------------------------------------------


def unfinished_runs(fleet: Fleet) -> list[RunId]:
    """The unfinished runs, newest last, because a terminal shows the end."""
    return fleet.glances.unfinished_runs()


def last_ended_runs(fleet: Fleet) -> list[RunId]:
    """The last few ended runs."""
    return [run.id for run in reversed(fleet.runs(limit=LAST)) if run.ended]


def runs_of(fleet: Fleet, chosen: Iterable[Selection]) -> list[RunId]:
    """The runs of a selection, also the runs of single jobs."""
    members = dict.fromkeys(place.transaction for each in chosen for place in each.jobs)
    whole = [run for each in chosen for run in each.runs]
    return list(dict.fromkeys([*whole, *fleet.glances.runs_of(members).values()]))


# --- for people -----------------------------------------------------------------------------------------


def show_all(fleet: Fleet) -> None:
    """Show the unfinished runs with some jobs, and the last few ended runs as a line."""
    over, going = last_ended_runs(fleet), unfinished_runs(fleet)
    now = fleet.registry.hosts.now() / 1000
    for each in fleet.holding():
        click.echo(in_force(each, now))
    for run in over:
        show_run(fleet, run, most=-1)
    for run in going:
        show_run(fleet, run, most=BRIEF)
    if not over and not going:
        click.echo("no runs yet: blockjobs run FILE, or blockjobs backup SOURCE TARGET")


def in_force(holding: Holding, now: float) -> str:
    """A pause-all or a drain as one line: cause, owner, and end."""
    parts = [f"{holding.reason} holds jobs {since_text(holding.since / 1000, now)}"]
    parts += [holding.cause] * bool(holding.cause) + [f"by {holding.owner}"] * bool(holding.owner)
    parts += ["is being lifted"] if holding.lifting else []
    parts += [f"until {time_of_day(holding.expires / 1000, now)}"] if holding.expires else []
    return ", ".join(parts)


def show_run(fleet: Fleet, run_id: RunId, *, most: int) -> None:
    """Show a run and at most ``most`` of the run's jobs; 0: every job, -1: no job."""
    run = next(iter(fleet.registry.views.runs_of([run_id])), None)
    click.echo(run_heading(run, time.time()) if run is not None else f"{run_id}: the record of the run cannot be read")
    if most < 0:
        return
    for need in () if run is None or run.ended else needs_of_run(fleet, run_id)[:BRIEF]:
        click.echo(f"  needs attention: {need.text}")
    places = fleet.registry.views.places(run_id)
    for txn in (
        () if run is None or run.ended else grouped_transactions(fleet, run, places)
    ):  # of individual ones: `show`
        for text in absent_hosts_owing(
            txn, {host.name: host for host in fleet.hosts()}, fleet.registry.hosts.now() / 1000
        ):
            click.echo(f"  {text}")
    print_jobs(fleet, places[: most or None])
    if most and len(places) > most:
        click.echo(f"  ... and {len(places) - most} more: blockjobs status {run_id}")


def grouped_transactions(fleet: Fleet, run: RunView, places: Sequence[JobPlace]) -> Iterator[TxnView]:
    """The grouped transactions of a run that are not forgotten."""
    policies = run.fields.policies
    for txn in dict.fromkeys(place.transaction for place in places):
        policy = policies.get(transaction_name(run.id, txn, policies))
        if (run.grouped if policy is None else policy.grouped) and (view := fleet.registry.views.transaction(txn)):
            yield view


def print_jobs(fleet: Fleet, places: Sequence[JobPlace]) -> None:
    for lines in row_pages(map(job_cells, fleet.registry.views.jobs(places))):
        for text in aligned_lines(lines):
            click.echo(f"  {text}")


def row_pages(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    while page := list(islice(rows, PAGE)):
        yield page


def job_cells(job: JobView) -> list[str]:
    """A job as columns: name, host, status, progress, time, and remarks."""
    row = Row.of(job)
    percent = f"{100 * job.offset // job.len} %" if job.len else ""
    amount = f"{size_text(job.offset)} of {size_text(job.len)}" if job.len else ""
    took = duration_as_clock(job.elapsed) if job.started else ""
    holds = job.holds.items() if job.status in ACCEPTS[Verb.RESUME] else ()
    held = ", ".join(f"held by {reason}" + f": {cause}" * bool(cause) for reason, cause in holds if reason != "created")
    error = job.error if job.status in (Status.ABORTING, Status.CONCLUDED) else ""
    told = error or job.unsettled or held or _limit_text(job)
    return [row.name, job.host, row.word, percent, amount, took, told]


def _limit_text(job: JobView) -> str:
    if job.crowded:
        return f"store {job.spec.store} is full"
    return f"slowed to {speed_text(job.limit)}" if job.slowed else ""
