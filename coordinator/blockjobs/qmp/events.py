"""Events of the fleet as QEMU's events: the supported names, and their exact fields.

A timestamp is the stream's id: milliseconds of Redis' clock, and the number within the millisecond in place of the
microseconds.  A timestamp is thus unique, and gives the event's position in the stream.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from blockjobs.registry.events import Event

_LATEST: Final = 999  # microseconds within a millisecond
_LAST: Final = 1 << 60  # ms: later than any event
_RESULT: Final = ("type", "device", "len", "offset", "speed")
FIELDS: Final = {  # name -> the fields that are always present, in order
    "JOB_STATUS_CHANGE":   ("status", "id"),
    "BLOCK_JOB_COMPLETED": _RESULT,
    "BLOCK_JOB_CANCELLED": _RESULT,
    "BLOCK_JOB_READY":     _RESULT,
    "BLOCK_JOB_ERROR":     ("device", "operation", "action"),
    "BLOCK_JOB_PENDING":   ("type", "id"),
}  # fmt: skip
_NUMBERS: Final = frozenset({"len", "offset", "speed"})
_SYSTEM: Final = frozenset(map(os.strerror, errno.errorcode))


def translate_event(event: Event) -> dict[str, Any] | None:
    """The message for a client; None for an event unknown to QEMU."""
    fields = FIELDS.get(event.name)
    if fields is None:
        return None
    known = {**event.fields, "id": event.id, "device": event.id}
    data: dict[str, Any] = {name: int(known[name]) if name in _NUMBERS else known[name] for name in fields}
    if event.name == "BLOCK_JOB_COMPLETED" and "error" in known:
        data["error"] = system_error_text(known["error"])
    return {"event": event.name, "data": data, "timestamp": event_timestamp(event.seq)}


def system_error_text(text: str) -> str:
    """An error as QEMU reports it: only the system's text, if the fleet's text ends with the system's text."""
    last = text.rpartition(": ")[2]
    return last if last in _SYSTEM else text


def event_timestamp(seq: str) -> dict[str, int]:
    ms, _, number = seq.partition("-")
    seconds, rest = divmod(int(ms), 1000)
    return {"seconds": seconds, "microseconds": rest * 1000 + min(int(number or 0), _LATEST)}


def sequence_of_timestamp(at: dict[str, int]) -> str:
    """The stream's id of the event with this timestamp, or of its place in the stream."""
    ms, number = divmod(at["microseconds"], 1000)
    return f"{min(max(0, at['seconds'] * 1000 + ms), _LAST)}-{number}"


def is_earlier_sequence(seq: str, other: str) -> bool:
    """Whether ``seq`` comes before ``other`` in the stream."""
    return _sequence_key(seq) < _sequence_key(other)


def _sequence_key(seq: str) -> tuple[int, int]:
    ms, _, number = seq.partition("-")
    return int(ms), int(number or 0)
