"""The event stream: every state change, once, in order; read from any point, never lost while it is kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import redis

from blockjobs.model.ids import Host, is_internal
from blockjobs.registry import keys
from blockjobs.registry.connection import Client, redis_milliseconds
from blockjobs.registry.eventkinds import list_needs
from blockjobs.registry.odd import Odd
from blockjobs.registry.scripts import Scripts

BEGINNING: Final = "0"
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Event:
    """``seq``: the stream's id (milliseconds of Redis' clock, dash, number); ``id``: the job or host of the event."""

    seq: str
    name: str
    id: str
    txn: str
    run: str
    host: str
    fields: dict[str, str]
    written: int = 0  # ms by Redis' clock, if written before the entry came into this stream

    @property
    def at(self) -> float:
        """Seconds since the epoch, by Redis' clock."""
        return (self.written or int(self.seq.partition("-")[0])) / 1000


class Events:
    """``internal``: include events of internal jobs, as the daemons need."""

    def __init__(self, client: Client, scripts: Scripts, *, internal: bool = False, odd: Odd | None = None) -> None:
        self._redis, self._scripts, self._internal, self._odd = client, scripts, internal, odd or Odd()

    def last(self) -> str:
        """The current end of the stream; ``after(last())`` gives later events."""
        end, count = "+", 1
        while page := self._redis.xrevrange(keys.events(), max=end, count=count):
            for entry, fields in page:
                event = self._event(entry, fields)
                if event is not None and self._visible(event):
                    return event.seq
            end, count = f"({page[-1][0].decode()}", PAGE
        return BEGINNING

    def oldest(self) -> str:
        """The oldest event in the stream, if older events were trimmed; "0-0" if none was."""
        try:
            about = self._redis.xinfo_stream(keys.events())
        except redis.ResponseError:  # nothing has ever happened
            return "0-0"
        if about["entries-added"] == about["length"]:
            return "0-0"
        first = about["first-entry"]
        return str((first[0] if first else about["last-generated-id"]).decode())

    def after(self, seq: str, *, block_ms: int = 0) -> list[Event]:
        """Up to a page of events behind ``seq``; waits at most ``block_ms`` for the first event (0: no wait)."""
        give_up = time.monotonic() + block_ms / 1000
        while page := self._read(seq, block_ms):
            events = (self._event(entry, fields) for entry, fields in page)
            if visible := [event for event in events if event is not None and self._visible(event)]:
                return visible
            seq, block_ms = page[-1][0].decode(), max(0, round((give_up - time.monotonic()) * 1000))
        return []

    def _event(self, entry: bytes, fields: Mapping[bytes, bytes]) -> Event | None:
        return self._odd.read(f"event {entry.decode()}", lambda: _parse_event(entry, fields))

    def _read(self, seq: str, block_ms: int) -> Sequence[tuple[bytes, Mapping[bytes, bytes]]]:
        reply = self._redis.xread({keys.events(): seq}, count=PAGE, block=block_ms or None)
        if not reply:
            return []
        page: Sequence[tuple[bytes, Mapping[bytes, bytes]]] = (
            next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
        )
        return page

    def _visible(self, event: Event) -> bool:
        return self._internal or not (is_internal(event.run) or is_internal(event.id))

    def merge(self, hosts: Iterable[Host]) -> None:
        """Move events from the streams of these hosts to the common stream: at most a page per host."""
        self._scripts.call("merge", [], [*hosts])

    def wait_for_hosts(self, hosts: Iterable[Host], milliseconds: int) -> list[Host]:
        """The hosts with events not moved yet; waits at most ``milliseconds`` for the first event."""
        streams = {keys.host_events(host).encode(): host for host in hosts}
        reply = self._redis.xread(dict.fromkeys(streams, BEGINNING), count=1, block=milliseconds) or {}
        return [streams[name] for name in reply]

    def trim(self, keep_ms: int) -> None:
        """Forget events older than ``keep_ms``, but none since the oldest unfinished transaction began."""
        floor = redis_milliseconds(self._redis.time()) - keep_ms
        oldest = self._redis.zrange(keys.unfinished(), 0, 0, withscores=True)
        if oldest:
            floor = min(floor, int(oldest[0][1]))
        self._redis.xtrim(keys.events(), minid=f"{floor}-0", approximate=True)

    def all(self, after: str = BEGINNING) -> Iterator[Event]:
        """Every present event behind ``after``."""
        while page := self.after(after):
            yield from page
            after = page[-1].seq


def _parse_event(entry: bytes, fields: Mapping[bytes, bytes]) -> Event:
    words = {name.decode(): value.decode() for name, value in fields.items()}
    for name, whole in list_needs(words["event"]).items():
        if whole:
            int(words[name])
        elif name not in words:
            raise KeyError(name)
    written = int(words.pop("at", 0))
    return Event(
        entry.decode(),
        words.pop("event"),
        words.pop("id", ""),
        words.pop("txn", ""),
        words.pop("run", ""),
        words.pop("host", ""),
        words,
        written,
    )
