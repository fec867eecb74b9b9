"""Live bars: a line per running job and per run, redrawn at every update."""

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
from blockjobs.cli.output import duration_as_clock
from blockjobs.cli.phrases import counted_noun, event_sentence
from blockjobs.model.numbers import size_text
from blockjobs.model.policies import RunOutcome
from blockjobs.registry.events import Event

MOST: Final = 20  # job lines at once
STYLES: Final = {
    "done": "green", "failed": "bold red", "cancelled": "yellow", "aborting": "yellow", "paused": "magenta",
    "pausing": "magenta", "running": "cyan", "queued": "dim", "created": "dim", "waiting": "blue", "pending": "blue",
    RunOutcome.COMMITTED: "green", RunOutcome.PARTLY: "bold red", RunOutcome.ABORTED: "bold red",
    RunOutcome.SKIPPED: "yellow",
}  # fmt: skip
WIDE: Final = 100  # columns of a terminal with room for amounts


class Bars:
    """A board on a terminal, shown in a ``with`` block."""

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
            if is_worth_a_line(event):
                self.say(f"{event.id}: {event_sentence(event)}")

    def look(self, board: Board) -> None:
        room = max(1, min(MOST, self._console.height - len(board.runs) - 3))
        self._live.update(draw_board(board, room, self._console.width), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(Text(text))


def is_worth_a_line(event: Event) -> bool:
    """Whether an event is worth a line above the bars."""
    match event.name:
        case "JOB_WARNING" | "JOB_UNSETTLED" | "BLOCK_JOB_PENDING":
            return True
        case "HOST_UP" | "HOST_DOWN" | "RUN_LATE" | "RUN_LAUNCHED" | "RUN_REPLACED":
            return True
        case "TRANSACTION_CUT":
            return "consistency" in event.fields
        case "BLOCK_JOB_ERROR":
            return event.fields["action"] != "report"  # else the job ends, and its end reports the error
        case "ATTEMPT_RELEASED":
            return event.fields["reason"] in ("dead", "fenced")
        case "BLOCK_JOB_COMPLETED":
            return "error" in event.fields
    return False


def draw_board(board: Board, room: int, width: int) -> RenderableType:
    """The board as bars, at most ``room`` of jobs."""
    rows = board.visible(room)
    names = [*(row.name for row in rows), *board.runs]
    name = max(map(len, names), default=0)
    columns = [9, 5, *([24] if width >= WIDE else []), 12, 11]  # widest status, percent, amount, rate, ETA
    bar = min(40, max(8, width - name - sum(columns) - len(columns) - 1))
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True, min_width=columns[0])
    table.add_column(width=bar)
    for least in columns[1:]:
        table.add_column(no_wrap=True, justify="right", min_width=least)
    for row in rows:
        table.add_row(*_job_columns(row, bar, wide=width >= WIDE))
    for tally in board.runs.values():
        table.add_row(*_run_columns(tally, bar, wide=width >= WIDE))
    rest = len(board.rows) - len(rows)
    return Group(table, Text(jobs_summary(board.runs.values()), style="dim")) if rest else table


def _job_columns(row: Row, width: int, *, wide: bool) -> Iterable[RenderableType]:
    word = row.word
    style = STYLES.get(word, "")
    rate = f"{size_text(row.rate.value)}/s" if word == "running" else ""
    yield Text(row.name)
    yield Text(word, style)
    yield _progress_bar(row.offset, row.len, style, width, full=word == "done")
    yield from _amount_columns(row.offset, row.len, rate, row.eta, wide=wide)


def _run_columns(tally: Tally, width: int, *, wide: bool) -> Iterable[RenderableType]:
    word = tally.outcome if tally.ended else "running"
    style = STYLES[word]
    rate = "" if tally.ended else f"{size_text(tally.rate.value)}/s"
    yield Text(tally.id, "bold")
    yield Text(word, style)
    yield _progress_bar(tally.offset, tally.len, style, width, full=word == RunOutcome.COMMITTED)
    yield from _amount_columns(tally.offset, tally.len, rate, tally.eta, wide=wide)


def _progress_bar(offset: int, length: int, style: str, width: int, *, full: bool) -> ProgressBar:
    total = max(1, length)
    return ProgressBar(
        total=total,
        completed=total if full else offset,
        width=width,
        complete_style=style or "cyan",
        finished_style=style or "green",
    )


def _amount_columns(offset: int, length: int, rate: str, eta: float | None, *, wide: bool) -> Iterable[Text]:
    yield Text(f"{100 * offset // length} %" if length else "")
    if wide:
        yield Text(f"{size_text(offset)} of {size_text(length)}" if length else "")
    yield Text(rate)
    yield Text(f"ETA {duration_as_clock(eta)}" if eta is not None else "")


def jobs_summary(runs: Iterable[Tally]) -> str:
    """``1000 jobs: 12 running, 900 queued, 88 done``."""
    total, words = 0, dict.fromkeys((*STYLES, *OVER), 0)
    for tally in runs:
        total += tally.jobs
        for word, number in tally.words.items():
            words[word] = words.get(word, 0) + number
    return f"{counted_noun(total, 'job')}: " + ", ".join(f"{number} {word}" for word, number in words.items() if number)
