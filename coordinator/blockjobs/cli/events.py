"""``events``: past events, a line per event, and events to come."""

from __future__ import annotations

import json as codec
import time
from typing import Any

import click

from blockjobs.cli.follow import Detach
from blockjobs.cli.options import redis_option
from blockjobs.cli.phrases import event_line
from blockjobs.cli.selection import is_event_about, is_glob
from blockjobs.client.event_stream import BLOCK, Patience, Stream
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import BadInput, NoSuchRun, Refused
from blockjobs.registry.events import BEGINNING, Event
from blockjobs.registry.odd import Unreadable


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--follow", is_flag=True, help="Stay, and print new events until Ctrl-C.")
@click.option("--since", metavar="SEQ", help="Only events after this one; 'now': only future events.")
@click.option("--json", "json", is_flag=True, help="One JSON object for each line; --since takes the value of 'seq'.")
@redis_option
def events(ids: tuple[str, ...], follow: bool, since: str | None, json: bool, url: str | None) -> None:
    """Print events, oldest first: all, or those of runs, jobs or hosts (also as a quoted glob).

    \b
    Example:
      blockjobs events nightly-20261122T103000Z
      blockjobs events --follow --json
    """
    with Fleet(url) as fleet, Detach() as leave:
        stream = Stream(
            fleet.registry,
            event_to_begin_after(fleet, ids, since),
            Patience(say=lambda text: click.echo(text, err=True)),
        )
        unseen = set(ids) - set(fleet.registry.hosts.known()) if since is None else set()
        while not leave.asked:
            news = stream.take(BLOCK if follow else 0.001)
            for event in news:
                unseen -= {text for text in unseen if is_event_about(event, (text,))}
                if not ids or is_event_about(event, ids):
                    click.echo(codec.dumps(event_as_json(event)) if json else event_line(event, time.time()))
            if not news:
                # A glob may match later runs; a name without any event is misspelt.
                for text in sorted(unseen):
                    if not (follow and is_glob(text)):
                        raise Refused(f"no event is of '{text}': a run, a transaction, a job or a host was expected")
                if not follow:
                    break
                unseen = set()


def event_to_begin_after(fleet: Fleet, ids: tuple[str, ...], since: str | None) -> str:
    """The event to begin after: a run or job has no events before the submission."""
    if since is not None:
        return fleet.registry.events.last() if since == "now" else checked_sequence(since)
    begins = []
    for text in ids:
        try:
            begins.append(0 if is_glob(text) else fleet.run(text).published)
        except (NoSuchRun, Unreadable):
            begins.append(0)
    return f"{min(begins) - 1}-0" if begins and min(begins) > 0 else BEGINNING


def checked_sequence(seq: str) -> str:
    """The valid ``--since`` value ``seq``; raises BadInput."""
    first, _, second = seq.partition("-")
    if not (first.isdecimal() and (second or "0").isdecimal() and max(len(first), len(second)) < 19):
        raise BadInput(f"--since '{seq}': the 'seq' of an event, such as 1795341600000-0, or 'now' was expected")
    return seq


def event_as_json(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq, "time": event.at, "event": event.name, "id": event.id, "run": event.run or None,
        "transaction": event.txn or None, "host": event.host or None, "data": event.fields,
    }  # fmt: skip
