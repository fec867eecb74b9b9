"""``run`` and ``backup``: submit, and follow to the end."""

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
from blockjobs.cli.daemons import redis_option
from blockjobs.cli.follow import Detach, Show, follow, patience_option, salvaged_lines, shown, verdict
from blockjobs.cli.gather import gather
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import complain, print_json
from blockjobs.cli.refusal import refusal_told
from blockjobs.cli.status import as_json
from blockjobs.cli.tellable import untellable
from blockjobs.cli.words import count, speed
from blockjobs.client.fleet import Coordinator
from blockjobs.client.stream import Patience, Stream
from blockjobs.model import cuts
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
from blockjobs.model.jobs import QEMU_POLICIES, OnChange, OnDamage, OnError, RoomCheck
from blockjobs.model.policies import Skipped, Verdict
from blockjobs.model.runs import NameUsed, RunPlan, plan_backup
from blockjobs.model.volumespec import FORMATS
from blockjobs.settings import current_directory
from blockjobs.store.limits import StoreView
from blockjobs.store.views import Place

HOSTED: Final = re.compile(r"[A-Za-z0-9._-]+:")
TRIES: Final = 30  # seconds in which another run of the same name may be started first
POLICIES: Final = click.Choice([str(policy) for policy in QEMU_POLICIES])
SOURCE_POLICIES: Final = click.Choice([str(policy) for policy in OnError])
Ending = Callable[[Board, RunId, Sequence[Skipped]], list[str]]


def follower_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that starts a run."""
    json = click.option("--json", "json", is_flag=True, help="Print the final result as JSON, and nothing else.")
    detach = click.option("--detach", is_flag=True, help="Return once it is submitted.")
    return detach(json(patience_option(redis_option(command))))


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that reads a run file."""
    only = click.option(
        "--only", multiple=True, metavar="NAME", help="This transaction only; may be given more than once."
    )
    changes = click.option(
        "--set", "changes", multiple=True, metavar="KEY=VALUE",
        help="Say it otherwise than the file, e.g. defaults.speed=50MiB or transactions.web.retry=0.",
    )  # fmt: skip
    return only(changes(command))


def read_whole(file: Path, changes: Sequence[str], only: Sequence[str]) -> runfile.RunFileRead:
    """A run file of which all is in order that can be known without the fleet; raises BadInput."""
    read = runfile.read(file, changes, only)
    with suppress(NameUsed):  # what the names mean, only the registry knows
        read.plan(datetime.now(UTC))
    return read


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@file_options
@follower_options
@click.option("--on-term", type=click.Choice(["detach", "cancel"]), default="detach", show_default=True,
              help="What SIGTERM does to the run: it goes on, or it is cancelled.")  # fmt: skip
def run(  # noqa: PLR0917 - click passes by name
    file: Path, url: str | None, detach: bool, json: bool, patience: float, only: tuple[str, ...],
    changes: tuple[str, ...], on_term: str,
) -> int:  # fmt: skip
    """Start the run that FILE describes, and follow it to the end.

    Exit code 0: every job committed; 1: not so; 2: refused, nothing was started; 3: no Redis, nothing was started; 4:
    not every job committed, and the file says that this will do; 6: the run is gone from the registry; 7: Redis was
    away for longer than --patience, the run goes on.  Ctrl-C only stops following: the run goes on.
    Where stderr is no terminal, a start that is refused is told to those whom the file lists under notify.attention.

    \b
    Example:
      blockjobs run nightly.yaml
      blockjobs run nightly.yaml --only db --set defaults.speed=50MiB --detach
    """
    with refusal_told(file, url):
        read = read_whole(file, changes, only)  # a bad file is refused whether Redis is there or not
        with Coordinator(url) as here:
            fleet = runfile.Fleet()

            def ask() -> None:
                nonlocal fleet
                fleet = gather(here, read, lambda text: click.echo(text, err=True))

            return start(
                here, lambda now: read.plan(now, fleet), detach=detach, json=json, patience=patience, before=ask,
                cancels=on_term == "cancel",
            )  # fmt: skip


class Size(click.ParamType[int]):
    """Bytes, or bytes a second, with or without a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return runfile.size(value)
        except ValueError as wrong:
            self.fail(str(wrong), param, ctx)


in_place_option = click.option(
    "--in-place", is_flag=True, help="The target is a block device: overwrite it (the host must allow it, too)."
)


class Snapshot(click.ParamType[str]):
    """A way to make a cut."""

    name = "how"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return cuts.snapshot(str(value))
        except BadInput as wrong:
            self.fail(str(wrong), param, ctx)


format_option = click.option(
    "--format", "form", type=click.Choice(["raw", *FORMATS]), default="raw", show_default=True,
    help="The target's format; any but raw needs QEMU's tools on the host.",
)  # fmt: skip
source_format_option = click.option(
    "--source-format", "source_form", type=click.Choice(["raw", *FORMATS]), default="raw", show_default=True,
    help="The source's format: of raw all bytes of the file are copied, of any other what is in the image.",
)  # fmt: skip
damage_option = click.option(
    "--on-source-damage", type=click.Choice([str(c) for c in OnDamage]), default="fail", show_default=True,
    help="What a source in a format whose tables are damaged does; report: its manifest says so.",
)  # fmt: skip
room_option = click.option(
    "--room", type=click.Choice([str(c) for c in RoomCheck]), default="check", show_default=True,
    help="What too little room for the target does: refuse the job, or go on with a warning.",
)  # fmt: skip


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--id", "job_id", help="The job's id  [default: made of the run's id and the target's name]")
@click.option(
    "--speed", type=Size(), default=0, help="At most so many bytes a second, e.g. 200MiB  [default: no limit]"
)
@click.option("--overwrite", is_flag=True, help="Replace a target that exists (the host must allow it, too).")
@in_place_option
@click.option("--no-digests", is_flag=True, help="Write no digests: `verify` cannot check the target.")
@format_option
@source_format_option
@click.option("--compress", is_flag=True, help="Compress the target; needs a --format that can.")
@click.option(
    "--snapshot",
    type=Snapshot(),
    default=cuts.AUTO,
    show_default=True,
    help="How the source is cut: auto, reflink, command:NAME (of host.toml) or none.",
)
@click.option("--live", is_flag=True, help="Read a source that is in use as it is, if it is not cut.")
@click.option(
    "--quiesce", default="", metavar="NAME", help="A command of host.toml that freezes the source for the cut."
)
@click.option(
    "--on-source-error",
    type=SOURCE_POLICIES,
    default="report",
    show_default=True,
    help="`skip`: what cannot be read is zeros in the target, and listed; the run ends with 1.",
)
@click.option("--on-target-error", type=POLICIES, default="report", show_default=True)
@click.option("--on-source-change", type=click.Choice([str(c) for c in OnChange]), default="fail", show_default=True)
@damage_option
@room_option
@click.option("--no-auto-finalize", is_flag=True, help="Commit only after `blockjobs finalize`.")
@click.option("--auto-dismiss", is_flag=True, help="Forget the job when it is concluded.")
@follower_options
def backup(  # noqa: PLR0917 - click passes by name
    source: str, target: str, url: str | None, detach: bool, json: bool, patience: float, job_id: str | None,
    speed: int, overwrite: bool, in_place: bool, no_digests: bool, form: str, source_form: str, compress: bool,
    snapshot: str, live: bool, quiesce: str, on_source_error: str, on_target_error: str, on_source_change: str,
    on_source_damage: str, room: str, no_auto_finalize: bool, auto_dismiss: bool,
) -> int:  # fmt: skip
    """Back up one image: a run of one job.

    SOURCE and TARGET are HOST:/PATH or a name of `volumes list`; a path without a host is on the only host there is.
    {run}, {date}, {time}, {host} and {name} in TARGET are replaced.

    \b
    Example:
      blockjobs backup web1:/srv/images/root.img web1:/backup/root-{date}.img
      blockjobs backup disk.img backup/disk.img --speed 50MiB
      blockjobs backup web1:/srv/images/root.img web1:/backup/root.qcow2 --format qcow2 --compress
      blockjobs backup web1:/srv/images/db.img web1:/backup/db.img --snapshot reflink --quiesce freeze-db
    """
    if quiesce and snapshot == cuts.NONE:
        raise BadInput("--quiesce: a source is frozen for its cut: a --snapshot was expected")
    with Coordinator(url) as here:
        (read, written), host = places(here, source, target)
        return start(here, lambda now: plan_backup(
            read, written, now=now, job_id=job_id, default_host=host, named=here.volume,
            form=form, source_form=source_form, compress=compress, speed=speed, overwrite=overwrite, in_place=in_place,
            digests=not no_digests,
            on_source_error=OnError(on_source_error), on_target_error=OnError(on_target_error),
            on_source_change=OnChange(on_source_change), on_source_damage=OnDamage(on_source_damage),
            room=RoomCheck(room), auto_finalize=not no_auto_finalize,
            auto_dismiss=auto_dismiss, snapshot=snapshot, live=live,
            options={"quiesce": quiesce} if quiesce else {},
        ), detach=detach, json=json, patience=patience)  # fmt: skip


def places(here: Coordinator, *texts: str) -> tuple[list[str], str | None]:
    """Volumes as typed, in full, and the host of those that name none; a name of ``volumes list`` stays as it is."""
    names = {node.name for node in here.volumes()}
    bare = [text for text in texts if text not in names and not HOSTED.match(text)]
    host = only_host([view.name for view in here.hosts()], bare[0]) if bare else None
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
    here: Coordinator, plan_at: Callable[[datetime], RunPlan], *, detach: bool, json: bool, patience: float,
    before: Callable[[], None] | None = None, cancels: bool = False, ending: Ending | None = None,
) -> int:  # fmt: skip
    """Submit a run and follow it; returns the exit code.

    ``patience``: seconds that Redis may be away meanwhile.  ``before``: asks the fleet what ``plan_at`` has to know.
    ``cancels``: SIGTERM cancels the run.  ``ending``: says how it ended, where that is not said as of a backup.
    """
    bear_lost_output()
    seq, stores = here.registry.events.last(), here.stores()
    here.registry.submit.patience = patience
    try:
        plan = submit(here, plan_at, before)
    except RunSkipped as passed:
        click.echo(str(passed), err=json)
        if json:
            print_json(as_json(here, []))
        return 0
    with started(plan.run):
        return attend_to_end(
            here, plan, seq, list(redefined(stores, plan)), Patience(patience, say=complain, what=f"run {plan.run}"),
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
    here: Coordinator, plan: RunPlan, seq: str, notes: Iterable[str], sight: Patience, *, detach: bool, json: bool,
    cancels: bool, ending: Ending | None,
) -> int:  # fmt: skip
    """Say that a run was started, and follow it; returns the exit code.  ``notes``: what is to be said of it."""
    sight.ask(lambda: warn_of_dead_daemons(here))
    sight.ask(lambda: warn_of_untellable(here, plan))
    hosts = len({job.host for job in plan.jobs})
    skipped = plan.fields.skipped
    without = f", {sum(len(each.jobs) for each in skipped)} skipped" if skipped else ""
    queued = sight.ask(lambda: here.run(plan.run)).queued
    behind = f", queued behind {queued}" if queued else ""
    click.echo(
        f"run {plan.run}: {count(len(plan.jobs), 'job')} on {count(hosts, 'host')}{without}{behind}", err=json
    )  # fmt: skip
    for text in notes:
        click.echo(text, err=True)
    if detach:
        if json:
            print_json(sight.ask(lambda: as_json(here, [plan.run])))
        return 0
    with Detach() as leave, shown(json=json) as show:
        sight.say = show.say
        board = attend(here, plan, seq, show, sight, until=lambda: left(here, plan, leave, sight, cancels=cancels))
    sight.say = complain
    if board.gone:
        return Exit.GONE
    if not board.ended:
        click.echo(f"detached; the run goes on.  Follow it: blockjobs status {plan.run} --watch", err=True)
        click.echo(f"                            Cancel it: blockjobs cancel {plan.run}", err=True)
        return Exit.INTERRUPTED if leave.asked == signal.SIGINT else Exit.TERMINATED
    if json:
        print_json(sight.ask(lambda: as_json(here, [plan.run])))
    ended = sight.ask(lambda: here.verdict(plan.run))
    if not (json and ended is Verdict.ALL):  # what failed is for stderr: cron mails it, a pipe does not swallow it
        met = ended is Verdict.PARTIAL
        told = ending(board, plan.run, skipped) if ending else verdict(board, plan.run, skipped, met=met)
        told += salvaged_lines(sight.ask(lambda: here.run(plan.run)))
        click.echo("\n".join(told), err=ended is not Verdict.ALL)
    return int(ended)


def left(here: Coordinator, plan: RunPlan, leave: Detach, sight: Patience, *, cancels: bool) -> bool:
    """Whether the follower is to leave; where SIGTERM ``cancels``, it does, and the end is awaited."""
    if not (cancels and leave.asked == signal.SIGTERM):
        return bool(leave.asked)
    with sight.bear():
        for job in plan.jobs:
            with suppress(NoSuchJob, VerbRefused):  # over, or decided
                here.cancel(job.id)
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


def submit(
    here: Coordinator, plan_at: Callable[[datetime], RunPlan], before: Callable[[], None] | None = None
) -> RunPlan:
    """Submit a run that starts now, or within a second that no run of its name has: an id has no smaller part."""
    for left in reversed(range(TRIES)):
        if before is not None:
            before()
        plan = plan_at(now := datetime.now(UTC))
        try:
            here.submit(plan)
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
    here: Coordinator, plan: RunPlan, seq: str, show: Show, sight: Patience | None = None, *,
    until: Callable[[], bool] = lambda: False, each: Callable[[Board], None] = lambda _: None,
) -> Board:  # fmt: skip
    """Follow a run just submitted to its end, or ``until``; ``seq``: where the events ended before."""
    board = Board()
    # The rows begin as they were at submit, and events bring them on.  So the end of the run comes by an event, too: a
    # run that is over already would end on the board before any of its jobs.
    sight = sight or Patience(say=show.say)
    run = replace(sight.ask(lambda: here.run(plan.run)), ended=0)
    board.add(run, [Row(Place(job.host, job.id, job.transaction), plan.run) for job in plan.jobs])
    follow(
        here, board, Stream(here.registry, seq, sight), show, until=lambda: board.ended or until(),
        each=lambda: each(board),
    )  # fmt: skip
    return board


def warn_of_dead_daemons(here: Coordinator) -> None:
    for name, alive in here.registry.hosts.daemons().items():
        if not alive:
            does = "no copy starts" if name == "coordinator" else "no run goes on or ends"
            click.echo(f"warning: the {name} does not run: {does} until it does", err=True)


def warn_of_untellable(here: Coordinator, plan: RunPlan) -> None:
    """A run is not refused for whom its file tells, and its end may not be told."""
    if wrong := untellable(here.registry.notices, plan.fields.notify):
        click.echo(f"warning: {wrong}", err=True)
