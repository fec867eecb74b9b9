"""Notify the ``notify.attention`` targets of a run file of a refused start that no person watches.

The command only leaves a notice in the registry: apprise and the secret of webhooks are with the coordinator.  If Redis
does not answer, or the file cannot be read, only the exit code reports the refusal.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import redis

from blockjobs.cli import runfile
from blockjobs.client.fleet import Fleet
from blockjobs.model import ids
from blockjobs.model.attention import Cause, Need
from blockjobs.model.errors import BlockjobsError, Refused
from blockjobs.model.notices import ATTENTION, attention_body, public_url
from blockjobs.registry.clock import read_steady_ms

QUIET: Final = 12 * 3600 * 1000  # ms for which a repeated refusal of a name is not told again


@contextmanager
def refusal_told(file: Path, url: str | None) -> Iterator[None]:
    """Notify of a start refused within the block, unless a terminal shows the refusal to a person."""
    try:
        yield
    except Refused as refused:  # an error after the start is no refusal (``run.started``)
        if not sys.stderr.isatty():
            # Whatever fails in this notice, the caller has to see the refusal.
            with suppress(BlockjobsError, redis.RedisError, OSError):
                tell_refusal(file, url, str(refused))
        raise


def tell_refusal(file: Path, url: str | None, why: str) -> None:
    """Have the coordinator notify of a refused start, once for each reason."""
    said = runfile.read_whom(file)
    if said is None:
        return
    name, fields = said
    with Fleet(url) as fleet:
        if fields.overdue:
            fleet.registry.names.declare(name, fields)
        urls = fields.notify.get(ATTENTION, ())
        if not urls:
            return
        turn = read_steady_ms(fleet.registry.client) // QUIET
        mark = f"{turn} {hashlib.sha256(why.encode(errors='replace')).hexdigest()[:16]}"
        need = Need(cause=Cause.REFUSED, subject=name, text=f"a start of {fields.file} was refused: {why}", mark=mark)
        unique = ids.run_id(name, datetime.now(UTC))
        said_then = attention_body(unique, name, fleet.registry.attention.to_json([need]))
        if fleet.registry.attention.tell_of_name(need, unique, said_then, urls):
            click.echo(f"a notification of the refusal goes to {', '.join(map(public_url, urls))}", err=True)
