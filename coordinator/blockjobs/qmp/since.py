"""``x-events-since``: the events that a client missed while disconnected."""

from __future__ import annotations

from typing import Any, Final

from blockjobs.qmp.events import is_earlier_sequence, sequence_of_timestamp, translate_event
from blockjobs.qmp.fleet import Backend

MOST: Final = 1000  # events in one reply


def events_since(fleet: Backend, arguments: dict[str, Any]) -> dict[str, Any]:
    """The events after the timestamp ``since``, oldest first.

    ``more``: ask again from the last event of this reply; ``gap``: some events after ``since`` are no longer kept.
    """
    stream = fleet.registry.events
    seq = sequence_of_timestamp(arguments["since"])
    found = []
    for event in stream.all(seq):
        if (message := translate_event(event)) is not None:
            found.append(message)
            if len(found) == MOST:
                break
    return {"events": found, "more": len(found) == MOST, "gap": is_earlier_sequence(seq, stream.oldest())}
