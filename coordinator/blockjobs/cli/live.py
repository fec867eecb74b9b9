"""Live bars: a line per job that runs, one per run, redrawn at every look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from blockjobs.cli.board import OVER, Board, Row, Tally
from blockjobs.cli.output import size, span
from blockjobs.cli.words import count, sentence
from blockjobs.store.events import Event

MOST: Final = 20  # job lines at once
STYLES: Final = {
    "done": "green", "failed": "bold red", "cancelled": "yellow", "aborting": "yellow", "paused": "magenta",
    "pausing": "magenta", "running": "cyan", "queued": "dim", "created": "dim", "waiting": "blue", "pending": "blue",
}  # fmt: skip
TOLD: Final = ("BLOCK_JOB_ERROR", "JOB_UNSETTLED", "BLOCK_JOB_PENDING")  # worth a line above the bars
LOST: Final = ("dead", "fenced")


class Bars:
    """Shows a board on a terminal, in a ``with`` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def events(self, news: Sequence[Event]) -> None:
        for event in news:
            lost = event.name == "ATTEMPT_RELEASED" and event.fields["reason"] in LOST
            if event.name in TOLD or lost or (event.name == "BLOCK_JOB_COMPLETED" and "error" in event.fields):
                self.say(f"{event.id}: {sentence(event)}")

    def look(self, board: Board) -> None:
        room = max(1, min(MOST, self._console.height - len(board.runs) - 3))
        self._live.update(draw(board, room, self._console.width), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(Text(text))


def draw(board: Board, room: int, width: int) -> RenderableType:
    """The board as bars, at most ``room`` of jobs."""
    bar = max(10, min(40, width - 72))
    table = Table.grid(padding=(0, 1))
    for _ in range(2):
        table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(width=bar)
    for _ in range(4):
        table.add_column(no_wrap=True, justify="right")
    rows = board.visible(room)
    for row in rows:
        table.add_row(*_job(row, bar))
    for tally in board.runs.values():
        table.add_row(*_run(tally, bar))
    rest = len(board.rows) - len(rows)
    return Group(table, Text(summary(board.runs.values()), style="dim")) if rest else table


def _job(row: Row, width: int) -> Iterable[RenderableType]:
    word = row.word
    style = STYLES.get(word, "")
    rate = f"{size(row.rate.value)}/s" if word == "running" else ""
    yield Text(row.name)
    yield Text(word, style)
    yield _bar(row.offset, row.len, style, width, full=word == "done")
    yield from _amounts(row.offset, row.len, rate, row.eta)


def _run(tally: Tally, width: int) -> Iterable[RenderableType]:
    word = "running"
    if tally.ended:
        word = "done" if tally.succeeded else "failed" if tally.words["failed"] else "cancelled"
    style = STYLES[word]
    rate = "" if tally.ended else f"{size(tally.rate.value)}/s"
    yield Text(tally.id, "bold")
    yield Text({"done": "committed", "failed": "aborted"}.get(word, word), style)
    yield _bar(tally.offset, tally.len, style, width, full=word == "done")
    yield from _amounts(tally.offset, tally.len, rate, tally.eta)


def _bar(offset: int, length: int, style: str, width: int, *, full: bool) -> ProgressBar:
    total = max(1, length)
    return ProgressBar(
        total=total, completed=total if full else offset, width=width, complete_style=style or "cyan",
        finished_style=style or "green",
    )  # fmt: skip


def _amounts(offset: int, length: int, rate: str, eta: float | None) -> Iterable[Text]:
    yield Text(f"{100 * offset // length} %" if length else "")
    yield Text(f"{size(offset)} of {size(length)}" if length else "")
    yield Text(rate)
    yield Text(f"ETA {span(eta)}" if eta is not None else "")


def summary(runs: Iterable[Tally]) -> str:
    """``1000 jobs: 12 running, 900 queued, 88 done``."""
    total, words = 0, dict.fromkeys((*STYLES, *OVER), 0)
    for tally in runs:
        total += tally.jobs
        for word, number in tally.words.items():
            words[word] = words.get(word, 0) + number
    return f"{count(total, 'job')}: " + ", ".join(f"{number} {word}" for word, number in words.items() if number)
