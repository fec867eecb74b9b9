"""Events from a given point on, for a follower: across absences of Redis, until the awaited end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import redis

from blockjobs.model.errors import SightLost
from blockjobs.model.states import Status
from blockjobs.registry.doors import Registry
from blockjobs.registry.events import PAGE, Event

log = logging.getLogger(__name__)
T = TypeVar("T")

BLOCK: Final = 0.5  # seconds of a read's wait for events; below the client's timeout
AWAY: Final = 0.3  # seconds between two tries while Redis does not answer
QUIET: Final = 1.5  # seconds without a sign of an absence until the absence is over
PATIENCE: Final = 600.0  # seconds of Redis' absence until a follower gives up
RECORDS: Final = 5.0  # seconds between two checks of the followed records


class Patience:
    """Bear absences of Redis up to a number of seconds; ``say`` is called at the begin and the end.

    ``what``: names the followed jobs or runs, which go on meanwhile.  A refusal by Redis counts as an absence, because
    a follower can only wait.
    """

    def __init__(self, seconds: float = math.inf, say: Callable[[str], None] = log.warning, what: str = "it") -> None:
        self.say = say
        self._seconds, self._what = seconds, what
        self._since: float | None = None  # when the present absence began
        self._last = 0.0  # when Redis was last found to be away

    @contextmanager
    def bear(self) -> Iterator[None]:
        """Swallow an absence within the block, and slow down the loop around the block.

        Raises:
            SightLost: the absence lasts for too long.
        """
        began = time.monotonic()  # the time of the call shows a Redis that hangs
        try:
            yield
        except redis.RedisError as error:
            now = self._last = time.monotonic()
            if self._since is None:
                self._since = began
                self.say(f"Redis is away, trying again: {error}")
            if now - self._since >= self._seconds:
                away = f"Redis is away for more than {self._seconds:g} s ({error})"
                raise SightLost(self._what, away) from None
            time.sleep(AWAY)

    def answered(self, quiet: float = QUIET) -> None:
        """Note an answer of Redis; an absence is over after ``quiet`` seconds without a sign of the absence.

        The first answer after an absence does not end the absence: Redis may answer some commands and refuse the rest
        for ever.
        """
        if self._since is not None and time.monotonic() - self._last >= quiet:
            self._since = None
            self.say("Redis is back")

    def ask(self, call: Callable[[], T]) -> T:
        """The result of ``call``, once Redis answers; raises SightLost."""
        while True:
            with self.bear():
                value = call()
                self.answered(0.0)
                return value


class Stream:
    """The events after a point, as written; absences of Redis are borne as ``patience`` says."""

    def __init__(self, registry: Registry, seq: str, patience: Patience | None = None) -> None:
        self.seq = seq
        self.patience = patience or Patience()
        self.at_end = False  # whether no event waited behind the last ``take``
        self._registry = registry

    def take(self, seconds: float) -> list[Event]:
        """The next page of events; waits for the first at most ``seconds`` (longer while Redis is being reached)."""
        news: list[Event] = []
        self.at_end = False
        with self.patience.bear():
            news = self._registry.events.after(self.seq, block_ms=max(1, int(seconds * 1000)))
            self.at_end = len(news) < PAGE
            self.patience.answered()
            if news:
                self.seq = news[-1].seq
        return news


class Records:
    """Check the followed records every ``RECORDS`` seconds, for an end without an event.

    A finding counts after two checks in a row: every earlier event was read in between.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._next = 0.0
        self._seen: set[str] = set()

    def twice(self, look: Callable[[], Iterable[str]]) -> set[str]:
        """The findings of ``look`` both now and at the last check; empty while no check is due."""
        if not self._stream.at_end or time.monotonic() < self._next:
            return set()
        found: set[str] = set()
        with self._stream.patience.bear():
            found = set(look())
        again, self._seen = found & self._seen, found
        self._next = time.monotonic() + RECORDS
        return again


def event_success(event: Event) -> bool | None:
    """Whether the run or job of the event succeeded; None if the event is no end.

    A job reaches CONCLUDED from PENDING when it was committed, and from ABORTING in every other case.  A job that is
    retried has not ended.
    """
    if event.name == "RUN_ENDED":
        return event.fields["failed"] == event.fields["cancelled"] == "0"
    if event.name == "JOB_STATUS_CHANGE" and event.fields["status"] == Status.CONCLUDED and "again" not in event.fields:
        return event.fields["from"] == Status.PENDING
    return None
