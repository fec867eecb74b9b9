"""``run`` and ``backup``: submit, and follow to the end."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from blockjobs.cli import runfile
from blockjobs.cli.board import Board, Row
from blockjobs.cli.daemons import redis_option
from blockjobs.cli.follow import Detach, Show, follow, shown, verdict
from blockjobs.cli.output import print_json
from blockjobs.cli.status import as_json
from blockjobs.cli.words import count, speed
from blockjobs.client import Coordinator
from blockjobs.model.errors import BadInput, RunExists, RunSkipped
from blockjobs.model.jobs import OnChange, OnError
from blockjobs.model.runs import NameUsed, RunPlan, plan_backup
from blockjobs.model.volumespec import FORMATS
from blockjobs.store.limits import StoreView
from blockjobs.store.views import Place
from blockjobs.stream import Stream

HOSTED: Final = re.compile(r"[A-Za-z0-9._-]+:")
TRIES: Final = 30  # seconds in which another run of the same name may be started first
POLICIES: Final = click.Choice([str(policy) for policy in OnError])


def follower_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that starts a run."""
    json = click.option("--json", "json", is_flag=True, help="Print the final result as JSON, and nothing else.")
    detach = click.option("--detach", is_flag=True, help="Return once it is submitted.")
    return detach(json(redis_option(command)))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@follower_options
def run(file: Path, url: str | None, detach: bool, json: bool) -> int:
    """Start the run that FILE describes, and follow it to the end.

    Exit code 0: every job committed; 1: not so; 2: refused, nothing was started; 3: no Redis.
    Ctrl-C only stops following: the run goes on.

    \b
    Example:
      blockjobs run nightly.yaml
      blockjobs run nightly.yaml --detach
    """
    plan_at = runfile.read(file)
    with suppress(NameUsed):  # what the names mean, only the registry knows
        plan_at(datetime.now(UTC))  # a bad file is refused whether Redis is there or not
    with Coordinator(url) as here:
        return start(here, lambda now: plan_at(now, here.volume), detach=detach, json=json)


class Size(click.ParamType[int]):
    """Bytes, or bytes a second, with or without a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return runfile.size(int(value) if str(value).isdigit() else value)
        except ValueError as wrong:
            self.fail(str(wrong), param, ctx)


format_option = click.option(
    "--format", "form", type=click.Choice(["raw", *FORMATS]), default="raw", show_default=True,
    help="The target's format; any but raw needs QEMU's tools on the host.",
)  # fmt: skip


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--id", "job_id", help="The job's id  [default: made of the run's id and the target's name]")
@click.option(
    "--speed", type=Size(), default=0, help="At most so many bytes a second, e.g. 200MiB  [default: no limit]"
)
@click.option("--overwrite", is_flag=True, help="Replace a target that exists (the host must allow it, too).")
@click.option("--no-digests", is_flag=True, help="Write no digests: `verify` cannot check the target.")
@format_option
@click.option("--compress", is_flag=True, help="Compress the target; needs a --format that can.")
@click.option("--on-source-error", type=POLICIES, default="report", show_default=True)
@click.option("--on-target-error", type=POLICIES, default="report", show_default=True)
@click.option("--on-source-change", type=click.Choice([str(c) for c in OnChange]), default="fail", show_default=True)
@click.option("--no-auto-finalize", is_flag=True, help="Commit only after `blockjobs finalize`.")
@click.option("--auto-dismiss", is_flag=True, help="Forget the job when it is concluded.")
@follower_options
def backup(  # noqa: PLR0917 - click passes by name
    source: str, target: str, url: str | None, detach: bool, json: bool, job_id: str | None, speed: int,
    overwrite: bool, no_digests: bool, form: str, compress: bool, on_source_error: str, on_target_error: str,
    on_source_change: str, no_auto_finalize: bool, auto_dismiss: bool,
) -> int:  # fmt: skip
    """Back up one image: a run of one job.

    SOURCE and TARGET are HOST:/PATH or a name of `volumes list`; a path without a host is on the only host there is.
    {run}, {date}, {time}, {host} and {name} in TARGET are replaced.

    \b
    Example:
      blockjobs backup web1:/srv/images/root.img web1:/backup/root-{date}.img
      blockjobs backup disk.img backup/disk.img --speed 50MiB
      blockjobs backup web1:/srv/images/root.img web1:/backup/root.qcow2 --format qcow2 --compress
    """
    with Coordinator(url) as here:
        (read, written), host = places(here, source, target)
        return start(here, lambda now: plan_backup(
            read, written, now=now, job_id=job_id, default_host=host, named=here.volume,
            form=form, compress=compress, speed=speed, overwrite=overwrite, digests=not no_digests,
            on_source_error=OnError(on_source_error), on_target_error=OnError(on_target_error),
            on_source_change=OnChange(on_source_change), auto_finalize=not no_auto_finalize,
            auto_dismiss=auto_dismiss,
        ), detach=detach, json=json)  # fmt: skip


def places(here: Coordinator, *texts: str) -> tuple[list[str], str | None]:
    """Volumes as typed, in full, and the host of those that name none; a name of ``volumes list`` stays as it is."""
    names = {node.name for node in here.volumes()}
    bare = [text for text in texts if text not in names and not HOSTED.match(text)]
    host = only_host([view.name for view in here.hosts()], bare[0]) if bare else None
    return [text if text in names else volume(text, os.getcwd()) for text in texts], host


def volume(text: str, directory: str) -> str:
    """A volume as typed: a relative path without a host becomes absolute."""
    if HOSTED.match(text) or text.startswith("/"):
        return text
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


def start(here: Coordinator, plan_at: Callable[[datetime], RunPlan], *, detach: bool, json: bool) -> int:
    """Submit a run and follow it; returns the exit code."""
    seq, stores = here.registry.events.last(), here.stores()
    try:
        plan = submit(here, plan_at)
    except RunSkipped as skipped:
        click.echo(str(skipped), err=json)
        if json:
            print_json(as_json(here, []))
        return 0
    warn_of_dead_daemons(here)
    hosts = len({job.host for job in plan.jobs})
    queued = here.run(plan.run).queued
    behind = f", queued behind {queued}" if queued else ""
    click.echo(f"run {plan.run}: {count(len(plan.jobs), 'job')} on {count(hosts, 'host')}{behind}", err=json)
    for text in redefined(stores, plan):
        click.echo(text, err=True)
    if detach:
        if json:
            print_json(as_json(here, [plan.run]))
        return 0
    with Detach() as leave, shown(json=json) as show:
        board = attend(here, plan, seq, show, until=lambda: bool(leave.asked))
    if not board.ended:
        click.echo(f"detached; the run goes on.  Follow it: blockjobs status {plan.run} --watch", err=True)
        click.echo(f"                            Cancel it: blockjobs cancel {plan.run}", err=True)
        return 130 if leave.asked == signal.SIGINT else 143
    if json:
        print_json(as_json(here, [plan.run]))
    succeeded = board.runs[plan.run].succeeded
    if not (json and succeeded):  # what failed is for stderr: cron sends it by mail, a pipe does not swallow it
        click.echo("\n".join(verdict(board, plan.run)), err=not succeeded)
    return 0 if succeeded else 1


def redefined(before: Iterable[StoreView], plan: RunPlan) -> Iterator[str]:
    """The stores that this run's file defines otherwise than they were: the newest definition wins."""
    for store in before:
        now = plan.fields.stores.get(store.name)
        if now is not None and (now.jobs, now.speed) != (store.jobs, store.speed):
            changes = [f"jobs {store.jobs or 'any'} -> {now.jobs or 'any'}"] * (now.jobs != store.jobs)
            changes += [f"speed {speed(store.speed)} -> {speed(now.speed)}"] * (now.speed != store.speed)
            yield f"store {store.name}: {', '.join(changes)}, as this file says (before: {store.by})"


def submit(here: Coordinator, plan_at: Callable[[datetime], RunPlan]) -> RunPlan:
    """Submit a run that starts now, or within a second that no run of its name has: an id has no smaller part."""
    for left in reversed(range(TRIES)):
        plan = plan_at(now := datetime.now(UTC))
        try:
            here.submit(plan)
            break
        except RunExists:
            if not left:
                raise
            time.sleep(1 - now.microsecond / 1e6)
    return plan


def attend(
    here: Coordinator, plan: RunPlan, seq: str, show: Show, *,
    until: Callable[[], bool] = lambda: False, each: Callable[[Board], None] = lambda _: None,
) -> Board:  # fmt: skip
    """Follow a run just submitted to its end, or ``until``; ``seq``: where the events ended before."""
    board = Board()
    board.add(here.run(plan.run), [Row(Place(job.host, job.id, job.transaction), plan.run) for job in plan.jobs])
    follow(
        here, board, Stream(here.registry, seq, show.say), show, until=lambda: board.ended or until(),
        each=lambda: each(board),
    )  # fmt: skip
    return board


def warn_of_dead_daemons(here: Coordinator) -> None:
    for name, alive in here.registry.hosts.daemons().items():
        if not alive:
            does = "no copy starts" if name == "coordinator" else "no run goes on or ends"
            click.echo(f"warning: the {name} does not run: {does} until it does", err=True)
