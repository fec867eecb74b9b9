"""Follow runs: new events at once, and twice a second the progress of running jobs.

The cost of an update depends on changed and running jobs, never on the number of jobs.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Protocol, Self

import click
from rich.console import Console

from blockjobs.cli.board import Board, Row
from blockjobs.cli.live import Bars
from blockjobs.cli.phrases import counted_noun, duration_text, event_line
from blockjobs.client.event_stream import PATIENCE, Records, Stream
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import NoSuchRun, RunGone
from blockjobs.model.ids import RunId
from blockjobs.model.numbers import size_text
from blockjobs.model.policies import RunOutcome, Skipped, replaced_text
from blockjobs.registry.events import Event
from blockjobs.registry.views import RunView

LOOK: Final = 0.5  # seconds between two updates of running jobs
SHOWN: Final = 20  # failures named at the end


class Seconds(click.FloatRange):
    """A number of seconds, maybe with a fraction."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):  # nan compares with no time: the wait would not end
            self.fail("nan is not a number of seconds", param, ctx)
        return seconds


patience_option = click.option(
    "--patience", type=Seconds(min=0), default=PATIENCE, show_default="600", metavar="S",
    help="Stop following, with exit code 7, after Redis was away for S seconds; the run goes on.",
)  # fmt: skip


class Show(Protocol):
    """An output of a follower."""

    def events(self, news: Sequence[Event]) -> None: ...
    def look(self, board: Board) -> None: ...
    def say(self, text: str) -> None: ...


class LineFollower:
    """A line per event, for an output other than a terminal."""

    def events(self, news: Sequence[Event]) -> None:
        now = time.time()
        for event in news:
            click.echo(event_line(event, now))

    def look(self, board: Board) -> None:
        """Show nothing: progress has no event."""

    def say(self, text: str) -> None:
        click.echo(text, err=True)


class Silent(LineFollower):
    """Errors only, on stderr: a program reads stdout."""

    def events(self, news: Sequence[Event]) -> None:
        """Show nothing."""


@contextmanager
def shown_progress(*, json: bool = False) -> Iterator[Show]:
    """Bars on a terminal, else lines; with ``json``: bars on stderr, or errors only."""
    stream = sys.stderr if json else sys.stdout
    if stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb":
        with Bars(Console(file=stream)) as bars:
            yield bars
    else:
        yield Silent() if json else LineFollower()


def add_run_to_board(fleet: Fleet, board: Board, run_id: RunId) -> None:
    """Put a run on the board with the present state, unless the record is unreadable."""
    for run in fleet.registry.views.runs_of([run_id]):
        board.add(run, map(Row.of, fleet.list(run_id)))


def follow_board(
    fleet: Fleet,
    board: Board,
    stream: Stream,
    show: Show,
    *,
    until: Callable[[], bool],
    joins: Callable[[RunId], bool] = lambda _: False,
    each: Callable[[], None] = lambda: None,
) -> None:
    """Keep ``board`` current and show it until ``until`` returns true.

    ``joins``: whether to follow a newly published run, too.  ``each``: called at every update. A run removed from the
    registry is no longer followed, and is listed in ``board.gone``.

    Raises:
        SightLost: Redis was away for longer than the stream's patience.
    """
    next_look, records = 0.0, Records(stream)
    while True:
        if (now := time.monotonic()) >= next_look:
            with stream.patience.bear():
                board.polled(fleet.glances.progress(board.to_poll()), now)
            next_look = now + LOOK
            show.look(board)
            each()
        if until():
            break
        news = stream.take(max(0.01, next_look - time.monotonic()))
        for event in news:
            if event.name == "RUN_PUBLISHED" and event.run not in board.runs and joins(RunId(event.run)):
                with stream.patience.bear():
                    add_run_to_board(fleet, board, RunId(event.run))
        for run in records.twice(lambda: runs_ended_by_record(fleet, board)):
            with stream.patience.bear():
                look_again(fleet, board, RunId(run), show)
        if ours := [event for event in news if board.apply(event)]:
            show.events(ours)
    with stream.patience.bear():
        board.polled(fleet.glances.progress(board.to_poll()), time.monotonic())
    show.look(board)


def runs_ended_by_record(fleet: Fleet, board: Board) -> list[RunId]:
    """The runs that go on by the events, but are over or gone by the records."""
    going = [run for run, tally in board.runs.items() if not tally.ended]
    return [run for run, over in fleet.glances.ends(going).items() if over is not False]


def look_again(fleet: Fleet, board: Board, run: RunId, show: Show) -> None:
    """Read the state of a run from the records again, or drop the run if the records are gone."""
    try:
        there = fleet.registry.views.run_id(run)
        found = [(view, [*map(Row.of, fleet.list(there))]) for view in fleet.registry.views.runs_of([there])]
    except NoSuchRun:
        board.drop(run)
        board.gone.append(run)
        show.say(str(RunGone(run)))
        return
    board.drop(run)
    for view, rows in found:
        board.add(view, rows)


def outcome_lines(board: Board, run_id: RunId, skipped: Sequence[Skipped] = (), *, met: bool = False) -> list[str]:
    """The outcome of a run: a line, and further lines for failures and skipped parts.

    ``met``: the run is partial, and the run file accepts this.
    """
    tally = board.runs[run_id]
    took = duration_text(tally.ended - tally.began)
    left_out = f", {sum(len(each.jobs) for each in skipped)} skipped" if skipped else ""
    without = [f"  {each.host} skipped: {', '.join(each.jobs)}: {each.why}" for each in skipped[:SHOWN]]
    if len(skipped) > SHOWN:
        without.append(f"  ... and {len(skipped) - SHOWN} more: blockjobs show {run_id}")
    enough = " (accepted by the run file)" if met else ""
    word = tally.outcome
    if word is RunOutcome.SKIPPED:
        return [f"run {run_id} skipped after {took}: {replaced_text(tally.replaced)}"]
    if word is RunOutcome.COMMITTED:
        all_of_it = f"{counted_noun(tally.jobs, 'job')}, {size_text(tally.len)} in {took}"
        return [f"run {run_id} {word}: {all_of_it}{left_out}{enough}", *without]
    lost = [f"  {row.place.job}: {row.undefined}" for row in board.rows.values() if row.run == run_id and row.undefined]
    failed = [row for row in board.rows.values() if row.run == run_id and row.outcome == "failed"]
    done = tally.jobs - tally.words["failed"] - tally.words["cancelled"]
    if failed and tally.jobs == 1 and not skipped:
        return [f"run {run_id} {word} after {took}: {failed[0].error}", *lost]
    late = f" ({tally.late})" if tally.late else ""
    counts = f"{done} done, {tally.words['failed']} failed, {tally.words['cancelled']} cancelled{left_out}{enough}"
    told = [f"run {run_id} {word} after {took}: {counts}{late}"]
    told += [f"  {row.place.job} failed: {row.error}" for row in failed[:SHOWN]]
    if len(failed) > SHOWN:
        told.append(f"  ... and {len(failed) - SHOWN} more: blockjobs status {run_id}")
    return told + lost + without


def salvaged_lines(run: RunView) -> list[str]:
    """A line about sources with unreadable parts; empty without salvaged jobs."""
    if not run.salvaged:
        return []
    what = "parts of its source" if run.salvaged == 1 else "parts of their sources"
    jobs = counted_noun(run.salvaged, "job")
    return [f"  {jobs} salvaged: {what} could not be read and are zeros: blockjobs report {run.id}"]


class Detach:
    """Within the ``with`` block Ctrl-C and SIGTERM end nothing: ``asked`` is the signal, 0 for none."""

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the kernel's signature
        self.asked = number
