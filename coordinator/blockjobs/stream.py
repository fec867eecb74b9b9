"""The events from a point on, as a client follows them: through absences of Redis, to the end of what it awaits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import redis

from blockjobs.model.states import Status
from blockjobs.store.events import Event
from blockjobs.store.registry import Registry

log = logging.getLogger(__name__)

BLOCK: Final = 0.5  # seconds one read of the events waits at most; below the client's timeout
AWAY: Final = 0.3  # seconds between two tries while Redis does not answer


class Stream:
    """The events behind a point, as they come; outlives absences of Redis.  ``away`` hears of each, once."""

    def __init__(self, registry: Registry, seq: str, away: Callable[[str], None] = log.warning) -> None:
        self.seq = seq
        self._registry, self._away, self._here = registry, away, True

    def take(self, seconds: float) -> list[Event]:
        """The next page of events; waits for the first at most ``seconds`` (longer while Redis is being reached)."""
        news: list[Event] = []
        with self.patience():
            news = self._registry.events.after(self.seq, block_ms=max(1, int(seconds * 1000)))
            if news:
                self.seq = news[-1].seq
        return news

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Swallows the absence of Redis, says so once, and slows down the loop around it."""
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError) as absence:
            if self._here:
                self._away(f"Redis is away, trying again: {absence}")
            self._here = False
            time.sleep(AWAY)
        else:
            if not self._here:
                self._away("Redis is back")
            self._here = True


def ending(event: Event) -> bool | None:
    """Whether what the event is of succeeded; None where it is no end.

    A job reaches CONCLUDED from PENDING when it was committed, and from ABORTING in every other case; that of one which
    is tried again is no end.
    """
    if event.name == "RUN_ENDED":
        return event.fields["failed"] == event.fields["cancelled"] == "0"
    if event.name == "JOB_STATUS_CHANGE" and event.fields["status"] == Status.CONCLUDED and "again" not in event.fields:
        return event.fields["from"] == Status.PENDING
    return None
