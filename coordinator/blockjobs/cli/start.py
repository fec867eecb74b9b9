"""Start a run and follow the run to its end: the common part of several commands."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import redis

from blockjobs.cli import runfile
from blockjobs.cli.board import Board, Row
from blockjobs.cli.follow import Detach, Show, follow_board, outcome_lines, salvaged_lines, shown_progress
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import print_error, print_json
from blockjobs.cli.phrases import counted_noun, speed_text
from blockjobs.cli.standing import runs_as_json
from blockjobs.cli.tellable import notify_target_error
from blockjobs.client.event_stream import Patience, Stream
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import (
    BadInput,
    HostDown,
    NoSuchJob,
    NoSuchRun,
    Refused,
    RunExists,
    RunGone,
    RunSkipped,
    SightLost,
    VerbRefused,
)
from blockjobs.model.exits import Exit
from blockjobs.model.ids import RunId
from blockjobs.model.policies import Skipped, Verdict
from blockjobs.model.runs import NameUsed, RunPlan
from blockjobs.registry.limits import StoreView
from blockjobs.registry.views import JobPlace
from blockjobs.settings import current_directory

HOSTED: Final = re.compile(r"[A-Za-z0-9._-]+:")
TRIES: Final = 30  # seconds in which other runs of the same name may start first
Ending = Callable[[Board, RunId, Sequence[Skipped]], list[str]]


def read_whole(file: Path, changes: Sequence[str], only: Sequence[str]) -> runfile.RunFileRead:
    """A run file, checked as far as possible without the fleet; raises BadInput."""
    read = runfile.read_run_file(file, changes, only)
    with suppress(NameUsed):  # only the registry knows the names
        read.plan(datetime.now(UTC))
    return read


def complete_volumes(fleet: Fleet, *texts: str) -> tuple[list[str], str | None]:
    """Typed volumes in full, and the host of volumes without a host; a name of ``volumes list`` stays unchanged."""
    names = {node.name for node in fleet.volumes()}
    bare = [text for text in texts if text not in names and not HOSTED.match(text)]
    host = only_host([view.name for view in fleet.hosts()], bare[0]) if bare else None
    return [text if text in names else absolute_volume(text) for text in texts], host


def absolute_volume(text: str, directory: str = "") -> str:
    """A typed volume: a relative path without a host becomes absolute; ``directory``: the base, "" for the current."""
    if HOSTED.match(text) or text.startswith("/"):
        return text
    directory = directory or str(current_directory(f"volume {text}"))
    # The braces of a template are the user's; the braces of a directory's name are literal.
    place = directory.replace("{", "{{").replace("}", "}}")
    return os.path.normpath(os.path.join(place, text))


def only_host(hosts: list[Any], text: str) -> str:
    """The host of a path without a host.

    Raises:
        BadInput: the fleet has no host, or more than one.
    """
    if len(hosts) != 1:
        known = f"there are {len(hosts)} hosts" if hosts else "no host is registered"
        raise BadInput(f"volume '{text}' names no host, and {known}: HOST:/PATH was expected")
    return str(hosts[0])


def start_and_follow(
    fleet: Fleet,
    plan_at: Callable[[datetime], RunPlan],
    *,
    detach: bool,
    json: bool,
    patience: float,
    before: Callable[[], None] | None = None,
    cancels: bool = False,
    ending: Ending | None = None,
) -> int:
    """Submit a run and follow it; return the exit code.

    ``patience``: seconds that Redis may be away meanwhile.  ``before``: asks the fleet for the facts of ``plan_at``.
    ``cancels``: SIGTERM cancels the run.  ``ending``: makes the final lines, if other than a backup's.
    """
    bear_lost_output()
    seq, stores = fleet.registry.events.last(), fleet.stores()
    fleet.registry.submit.patience = patience
    try:
        plan = submit_run(fleet, plan_at, before)
    except RunSkipped as passed:
        click.echo(str(passed), err=json)
        if json:
            print_json(runs_as_json(fleet, []))
        return 0
    with raising_sight_lost(plan.run):
        return attend_to_end(
            fleet,
            plan,
            seq,
            list(redefined_store_lines(stores, plan)),
            Patience(patience, say=print_error, what=f"run {plan.run}"),
            detach=detach,
            json=json,
            cancels=cancels,
            ending=ending,
        )


@contextmanager
def raising_sight_lost(run: RunId) -> Iterator[None]:
    """Turn errors in the block into a follower's errors: the run goes on, so no error may deny the start."""
    try:
        yield
    except NoSuchRun:
        raise RunGone(run) from None
    except (Refused, redis.RedisError) as error:
        raise SightLost(f"run {run}", str(error)) from error


def attend_to_end(
    fleet: Fleet,
    plan: RunPlan,
    seq: str,
    notes: Iterable[str],
    sight: Patience,
    *,
    detach: bool,
    json: bool,
    cancels: bool,
    ending: Ending | None,
) -> int:
    """Report that a run was started, and follow it; return the exit code.  ``notes``: further lines to print."""
    sight.ask(lambda: warn_of_dead_daemons(fleet))
    sight.ask(lambda: warn_of_untellable(fleet, plan))
    hosts = len({job.host for job in plan.jobs})
    skipped = plan.fields.skipped
    without = f", {sum(len(each.jobs) for each in skipped)} skipped" if skipped else ""
    queued = sight.ask(lambda: fleet.run(plan.run)).queued
    behind = f", queued behind {queued}" if queued else ""
    click.echo(
        f"run {plan.run}: {counted_noun(len(plan.jobs), 'job')} on {counted_noun(hosts, 'host')}{without}{behind}",
        err=json,
    )
    for text in notes:
        click.echo(text, err=True)
    if detach:
        if json:
            print_json(sight.ask(lambda: runs_as_json(fleet, [plan.run])))
        return 0
    with Detach() as leave, shown_progress(json=json) as show:
        sight.say = show.say
        board = follow_submitted_run(
            fleet, plan, seq, show, sight, until=lambda: leave_or_cancel_run(fleet, plan, leave, sight, cancels=cancels)
        )
    sight.say = print_error
    if board.gone:
        return Exit.GONE
    if not board.ended:
        click.echo(f"detached; the run goes on.  Follow it: blockjobs status {plan.run} --watch", err=True)
        click.echo(f"                            Cancel it: blockjobs cancel {plan.run}", err=True)
        return Exit.INTERRUPTED if leave.asked == signal.SIGINT else Exit.TERMINATED
    if json:
        print_json(sight.ask(lambda: runs_as_json(fleet, [plan.run])))
    ended = sight.ask(lambda: fleet.verdict(plan.run))
    if not (json and ended is Verdict.ALL):  # failures go to stderr: cron mails stderr, a pipe does not swallow it
        met = ended is Verdict.PARTIAL
        told = ending(board, plan.run, skipped) if ending else outcome_lines(board, plan.run, skipped, met=met)
        told += salvaged_lines(sight.ask(lambda: fleet.run(plan.run)))
        click.echo("\n".join(told), err=ended is not Verdict.ALL)
    return int(ended)


def leave_or_cancel_run(fleet: Fleet, plan: RunPlan, leave: Detach, sight: Patience, *, cancels: bool) -> bool:
    """Whether the follower leaves; with ``cancels``, SIGTERM cancels the run, and the follower awaits the end."""
    if not (cancels and leave.asked == signal.SIGTERM):
        return bool(leave.asked)
    with sight.bear():
        for job in plan.jobs:
            with suppress(NoSuchJob, VerbRefused):  # over, or decided
                fleet.cancel(job.id)
        leave.asked = 0
        click.echo(f"SIGTERM: run {plan.run} is cancelled", err=True)
    return False


def redefined_store_lines(before: Iterable[StoreView], plan: RunPlan) -> Iterator[str]:
    """Lines about stores with a new budget in this run's file: the newest definition wins."""
    for store in before:
        now = plan.fields.stores.get(store.name)
        if now is not None and (now.jobs, now.speed) != (store.jobs, store.speed):
            changes = [f"jobs {store.jobs or 'any'} -> {now.jobs or 'any'}"] * (now.jobs != store.jobs)
            changes += [f"speed {speed_text(store.speed)} -> {speed_text(now.speed)}"] * (now.speed != store.speed)
            yield f"store {store.name}: {', '.join(changes)}, as this file says (before: {store.by})"


def submit_run(
    fleet: Fleet, plan_at: Callable[[datetime], RunPlan], before: Callable[[], None] | None = None
) -> RunPlan:
    """Submit a run that starts now, or in the next free second of the run's name: run ids have whole seconds."""
    for left in reversed(range(TRIES)):
        if before is not None:
            before()
        plan = plan_at(now := datetime.now(UTC))
        try:
            fleet.submit(plan)
            break
        except RunExists:
            if not left:
                raise
            time.sleep(1 - now.microsecond / 1e6)
        except HostDown:  # a host went down after the questions: ask again whether the run can do without the host
            if before is None or not left:
                raise
    return plan


def follow_submitted_run(
    fleet: Fleet,
    plan: RunPlan,
    seq: str,
    show: Show,
    sight: Patience | None = None,
    *,
    until: Callable[[], bool] = lambda: False,
    each: Callable[[Board], None] = lambda _: None,
) -> Board:
    """Follow a run just submitted to the end, or ``until``; ``seq``: the last event before the submission."""
    board = Board()
    # The rows begin with the state at submission, and events update the rows.  The end of the run therefore has to come
    # by an event, too: a run already over would end on the board before the jobs.
    sight = sight or Patience(say=show.say)
    run = replace(sight.ask(lambda: fleet.run(plan.run)), ended=0)
    board.add(run, [Row(JobPlace(job.host, job.id, job.transaction), plan.run) for job in plan.jobs])
    follow_board(
        fleet,
        board,
        Stream(fleet.registry, seq, sight),
        show,
        until=lambda: board.ended or until(),
        each=lambda: each(board),
    )
    return board


def warn_of_dead_daemons(fleet: Fleet) -> None:
    for name, alive in fleet.registry.hosts.daemons().items():
        if not alive:
            does = "no copy starts" if name == "coordinator" else "no run goes on or ends"
            click.echo(f"warning: the {name} does not run: {does} until it does", err=True)


def warn_of_untellable(fleet: Fleet, plan: RunPlan) -> None:
    """Warn of a notify target out of reach: the run is not refused, but the end may go untold."""
    if wrong := notify_target_error(fleet.registry.notices, plan.fields.notify):
        click.echo(f"warning: {wrong}", err=True)
