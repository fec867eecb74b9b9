"""``x-events-since``: the events that a client missed while disconnected."""

from __future__ import annotations

from typing import Any, Final

from blockjobs.qmp.events import before, sequence, translate
from blockjobs.qmp.fleet import Backend

MOST: Final = 1000  # events in one reply


def events(fleet: Backend, arguments: dict[str, Any]) -> dict[str, Any]:
    """The events after the timestamp ``since``, oldest first.

    ``more``: ask again from the last event of this reply; ``gap``: some events after ``since`` are no longer kept.
    """
    stream = fleet.registry.events
    seq = sequence(arguments["since"])
    found = []
    for event in stream.all(seq):
        if (message := translate(event)) is not None:
            found.append(message)
            if len(found) == MOST:
                break
    return {"events": found, "more": len(found) == MOST, "gap": before(seq, stream.oldest())}
