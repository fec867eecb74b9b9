"""Output of every command: logging to stderr, JSON, and sizes and times for people."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import click

from blockjobs.model.volumespec import printable_text
from blockjobs.registry import odd


class _Complaints(logging.Handler):
    """A record of the log as a line of a command."""

    def emit(self, record: logging.LogRecord) -> None:
        print_error(record.getMessage())


_COMPLAINTS: Final = _Complaints(logging.WARNING)


@contextmanager
def naming_odd_records() -> Iterator[None]:
    """Name on stderr the unreadable records left out by a command, a line per record."""
    odd.log.addHandler(_COMPLAINTS)
    try:
        yield
    finally:
        odd.log.removeHandler(_COMPLAINTS)


@contextmanager
def naming_no_odd_records() -> Iterator[None]:
    """Print no unreadable records on stderr: the command itself reports the records."""
    odd.log.removeHandler(_COMPLAINTS)
    silent = logging.NullHandler()  # without any handler, logging prints a warning by itself
    odd.log.addHandler(silent)
    try:
        yield
    finally:
        odd.log.removeHandler(silent)
        odd.log.addHandler(_COMPLAINTS)


def start_logging(level: int = logging.INFO) -> None:
    """Start the log of a daemon: one sentence a line, to stderr."""
    odd.log.removeHandler(_COMPLAINTS)  # odd records are in the log
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )
    for noisy in ("celery.redirected", "kombu", "amqp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def print_error(text: str) -> None:
    """Print an error as one line on stderr; a name from outside can neither break nor color the line."""
    click.echo(f"blockjobs: {printable_text(text)}", err=True)


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=False))


def duration_as_clock(seconds: float) -> str:
    """75 -> ``1:15``, 3675 -> ``1:01:15``."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def aligned_lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells as columns, as wide as the widest cell of a column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
