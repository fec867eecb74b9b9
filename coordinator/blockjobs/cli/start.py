"""Start a run and follow it to its end: what every command that starts one has in common."""

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
from blockjobs.cli.follow import Detach, Show, follow, salvaged_lines, shown, verdict
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import complain, print_json
from blockjobs.cli.phrases import count, speed
from blockjobs.cli.standing import as_json
from blockjobs.cli.tellable import untellable
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
TRIES: Final = 30  # seconds in which another run of the same name may be started first
Ending = Callable[[Board, RunId, Sequence[Skipped]], list[str]]


def read_whole(file: Path, changes: Sequence[str], only: Sequence[str]) -> runfile.RunFileRead:
    """A run file of which all is in order that can be known without the fleet; raises BadInput."""
    read = runfile.read(file, changes, only)
    with suppress(NameUsed):  # what the names mean, only the registry knows
        read.plan(datetime.now(UTC))
    return read


def places(fleet: Fleet, *texts: str) -> tuple[list[str], str | None]:
    """Volumes as typed, in full, and the host of those that name none; a name of ``volumes list`` stays as it is."""
    names = {node.name for node in fleet.volumes()}
    bare = [text for text in texts if text not in names and not HOSTED.match(text)]
    host = only_host([view.name for view in fleet.hosts()], bare[0]) if bare else None
    return [text if text in names else volume(text) for text in texts], host


def volume(text: str, directory: str = "") -> str:
    """A volume as typed: a relative path without a host becomes absolute; ``directory``: "" is the current one."""
    if HOSTED.match(text) or text.startswith("/"):
        return text
    directory = directory or str(current_directory(f"volume {text}"))
    # The braces of a template are the user's; those of a directory's name stand for themselves.
    place = directory.replace("{", "{{").replace("}", "}}")
    return os.path.normpath(os.path.join(place, text))


def only_host(hosts: list[Any], text: str) -> str:
    """The host that a path without one is on.

    Raises:
        BadInput: there is none, or more than one.
    """
    if len(hosts) != 1:
        known = f"there are {len(hosts)} hosts" if hosts else "no host is registered"
        raise BadInput(f"volume '{text}' names no host, and {known}: HOST:/PATH was expected")
    return str(hosts[0])


def start(
    fleet: Fleet, plan_at: Callable[[datetime], RunPlan], *, detach: bool, json: bool, patience: float,
    before: Callable[[], None] | None = None, cancels: bool = False, ending: Ending | None = None,
) -> int:  # fmt: skip
    """Submit a run and follow it; returns the exit code.

    ``patience``: seconds that Redis may be away meanwhile.  ``before``: asks the fleet what ``plan_at`` has to know.
    ``cancels``: SIGTERM cancels the run.  ``ending``: says how it ended, where that is not said as of a backup.
    """
    bear_lost_output()
    seq, stores = fleet.registry.events.last(), fleet.stores()
    fleet.registry.submit.patience = patience
    try:
        plan = submit(fleet, plan_at, before)
    except RunSkipped as passed:
        click.echo(str(passed), err=json)
        if json:
            print_json(as_json(fleet, []))
        return 0
    with started(plan.run):
        return attend_to_end(
            fleet, plan, seq, list(redefined(stores, plan)), Patience(patience, say=complain, what=f"run {plan.run}"),
            detach=detach, json=json, cancels=cancels, ending=ending,
        )  # fmt: skip


@contextmanager
def started(run: RunId) -> Iterator[None]:
    """Within this block a run goes on, whatever happens to its follower: no error says that nothing was started."""
    try:
        yield
    except NoSuchRun:
        raise RunGone(run) from None
    except (Refused, redis.RedisError) as error:
        raise SightLost(f"run {run}", str(error)) from error


def attend_to_end(
    fleet: Fleet, plan: RunPlan, seq: str, notes: Iterable[str], sight: Patience, *, detach: bool, json: bool,
    cancels: bool, ending: Ending | None,
) -> int:  # fmt: skip
    """Say that a run was started, and follow it; returns the exit code.  ``notes``: what is to be said of it."""
    sight.ask(lambda: warn_of_dead_daemons(fleet))
    sight.ask(lambda: warn_of_untellable(fleet, plan))
    hosts = len({job.host for job in plan.jobs})
    skipped = plan.fields.skipped
    without = f", {sum(len(each.jobs) for each in skipped)} skipped" if skipped else ""
    queued = sight.ask(lambda: fleet.run(plan.run)).queued
    behind = f", queued behind {queued}" if queued else ""
    click.echo(
        f"run {plan.run}: {count(len(plan.jobs), 'job')} on {count(hosts, 'host')}{without}{behind}", err=json
    )  # fmt: skip
    for text in notes:
        click.echo(text, err=True)
    if detach:
        if json:
            print_json(sight.ask(lambda: as_json(fleet, [plan.run])))
        return 0
    with Detach() as leave, shown(json=json) as show:
        sight.say = show.say
        board = attend(fleet, plan, seq, show, sight, until=lambda: left(fleet, plan, leave, sight, cancels=cancels))
    sight.say = complain
    if board.gone:
        return Exit.GONE
    if not board.ended:
        click.echo(f"detached; the run goes on.  Follow it: blockjobs status {plan.run} --watch", err=True)
        click.echo(f"                            Cancel it: blockjobs cancel {plan.run}", err=True)
        return Exit.INTERRUPTED if leave.asked == signal.SIGINT else Exit.TERMINATED
    if json:
        print_json(sight.ask(lambda: as_json(fleet, [plan.run])))
    ended = sight.ask(lambda: fleet.verdict(plan.run))
    if not (json and ended is Verdict.ALL):  # what failed is for stderr: cron mails it, a pipe does not swallow it
        met = ended is Verdict.PARTIAL
        told = ending(board, plan.run, skipped) if ending else verdict(board, plan.run, skipped, met=met)
        told += salvaged_lines(sight.ask(lambda: fleet.run(plan.run)))
        click.echo("\n".join(told), err=ended is not Verdict.ALL)
    return int(ended)


def left(fleet: Fleet, plan: RunPlan, leave: Detach, sight: Patience, *, cancels: bool) -> bool:
    """Whether the follower is to leave; where SIGTERM ``cancels``, it does, and the end is awaited."""
    if not (cancels and leave.asked == signal.SIGTERM):
        return bool(leave.asked)
    with sight.bear():
        for job in plan.jobs:
            with suppress(NoSuchJob, VerbRefused):  # over, or decided
                fleet.cancel(job.id)
        leave.asked = 0
        click.echo(f"SIGTERM: run {plan.run} is cancelled", err=True)
    return False


def redefined(before: Iterable[StoreView], plan: RunPlan) -> Iterator[str]:
    """The stores that this run's file defines otherwise than they were: the newest definition wins."""
    for store in before:
        now = plan.fields.stores.get(store.name)
        if now is not None and (now.jobs, now.speed) != (store.jobs, store.speed):
            changes = [f"jobs {store.jobs or 'any'} -> {now.jobs or 'any'}"] * (now.jobs != store.jobs)
            changes += [f"speed {speed(store.speed)} -> {speed(now.speed)}"] * (now.speed != store.speed)
            yield f"store {store.name}: {', '.join(changes)}, as this file says (before: {store.by})"


def submit(fleet: Fleet, plan_at: Callable[[datetime], RunPlan], before: Callable[[], None] | None = None) -> RunPlan:
    """Submit a run that starts now, or within a second that no run of its name has: an id has no smaller part."""
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
        except HostDown:  # since it was asked: it is asked again whether the run can do without it
            if before is None or not left:
                raise
    return plan


def attend(
    fleet: Fleet, plan: RunPlan, seq: str, show: Show, sight: Patience | None = None, *,
    until: Callable[[], bool] = lambda: False, each: Callable[[Board], None] = lambda _: None,
) -> Board:  # fmt: skip
    """Follow a run just submitted to its end, or ``until``; ``seq``: where the events ended before."""
    board = Board()
    # The rows begin as they were at submit, and events bring them on.  So the end of the run comes by an event, too: a
    # run that is over already would end on the board before any of its jobs.
    sight = sight or Patience(say=show.say)
    run = replace(sight.ask(lambda: fleet.run(plan.run)), ended=0)
    board.add(run, [Row(JobPlace(job.host, job.id, job.transaction), plan.run) for job in plan.jobs])
    follow(
        fleet, board, Stream(fleet.registry, seq, sight), show, until=lambda: board.ended or until(),
        each=lambda: each(board),
    )  # fmt: skip
    return board


def warn_of_dead_daemons(fleet: Fleet) -> None:
    for name, alive in fleet.registry.hosts.daemons().items():
        if not alive:
            does = "no copy starts" if name == "coordinator" else "no run goes on or ends"
            click.echo(f"warning: the {name} does not run: {does} until it does", err=True)


def warn_of_untellable(fleet: Fleet, plan: RunPlan) -> None:
    """A run is not refused for whom its file tells, and its end may not be told."""
    if wrong := untellable(fleet.registry.notices, plan.fields.notify):
        click.echo(f"warning: {wrong}", err=True)
