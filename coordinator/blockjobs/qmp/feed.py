"""A single reader of the event stream for all clients, in a separate thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final

import redis

from blockjobs.qmp.events import is_earlier_sequence, translate_event
from blockjobs.qmp.wire import encode_message
from blockjobs.registry.doors import Registry
from blockjobs.registry.events import Event

log = logging.getLogger(__name__)

BLOCK: Final = 500  # ms of a read's wait
AWAY: Final = 0.3  # seconds between two tries while Redis is away


class Feed:
    """Hand each page of events, as bytes, to ``deliver`` in the loop; ``reached`` waits for a position."""

    def __init__(self, registry: Registry, deliver: Callable[[bytes], None]) -> None:
        self._events = registry.events
        self._deliver = deliver
        self._stop = threading.Event()
        self._seq = ""
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._thread = threading.Thread(target=self._read, name="qmp-feed", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2 * BLOCK / 1000)

    async def reached(self, seq: str, seconds: float) -> None:
        """Wait, at most ``seconds``, until every event up to ``seq`` was delivered."""
        if self._seq and not is_earlier_sequence(self._seq, seq):
            return
        here = self._loop.create_future()
        self._waiting.append((seq, here))
        try:
            await asyncio.wait_for(here, seconds)
        except TimeoutError:
            log.debug("the feed is behind: %s is not delivered", seq)

    def _read(self) -> None:
        seq, away = "", False
        while not self._stop.is_set():
            try:
                if not seq:
                    seq = self._events.last()
                    self._call(self._take, seq, [])
                page = self._events.after(seq, block_ms=BLOCK)
                if page:
                    seq = page[-1].seq
                    self._call(self._take, seq, page)
                away = False
            except redis.RedisError as error:
                if not away:
                    log.warning("QMP: Redis is away: %s", error)
                away = True
                self._stop.wait(AWAY)

    def _call(self, take: Callable[[str, list[Event]], None], seq: str, page: list[Event]) -> None:
        try:
            self._loop.call_soon_threadsafe(take, seq, page)
        except RuntimeError:  # the loop is closed: no client listens any more
            self._stop.set()

    def _take(self, seq: str, page: list[Event]) -> None:
        self._seq = seq
        if messages := b"".join(map(_encode_event, page)):
            self._deliver(messages)
        waiting, self._waiting = self._waiting, []
        for wanted, here in waiting:
            if is_earlier_sequence(seq, wanted):
                self._waiting.append((wanted, here))
            elif not here.done():
                here.set_result(None)


def _encode_event(event: Event) -> bytes:
    """The event for the wire; empty for a malformed event, or an event unknown to QMP clients."""
    try:
        message = translate_event(event)
    except (KeyError, ValueError):
        log.exception("QMP: event %s of '%s' has not the fields it should have", event.name, event.id)
        return b""
    return b"" if message is None else encode_message(message)
