"""The events from a point on, as a client follows them: through absences of Redis, to the end of what it awaits."""

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

BLOCK: Final = 0.5  # seconds one read of the events waits at most; below the client's timeout
AWAY: Final = 0.3  # seconds between two tries while Redis does not answer
QUIET: Final = 1.5  # seconds without a sign of an absence, after which it is over
PATIENCE: Final = 600.0  # seconds that Redis may be away until a follower gives up
RECORDS: Final = 5.0  # seconds between two looks at the records of what is followed


class Patience:
    """Bears each absence of Redis for so many seconds; ``say`` hears of its begin and its end.

    ``what``: is followed meanwhile, and goes on.  A refusal counts as an absence: whoever follows can only wait.
    """

    def __init__(
        self, seconds: float = math.inf, say: Callable[[str], None] = log.warning, what: str = "it"
    ) -> None:  # fmt: skip
        self.say = say
        self._seconds, self._what = seconds, what
        self._since: float | None = None  # when the present absence began
        self._last = 0.0  # when Redis was last found to be away

    @contextmanager
    def bear(self) -> Iterator[None]:
        """Swallow an absence that shows within the block, and slow down the loop around it.

        Raises:
            SightLost: it lasts for too long.
        """
        began = time.monotonic()  # a Redis that hangs is found out by how long it takes
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
        """Redis has answered; the absence is over if it did not show for ``quiet`` seconds.

        Not what is asked first after an absence ends it: one question may be answered and another one refused for ever.
        """
        if self._since is not None and time.monotonic() - self._last >= quiet:
            self._since = None
            self.say("Redis is back")

    def ask(self, call: Callable[[], T]) -> T:
        """What ``call`` returns, once Redis answers; raises SightLost."""
        while True:
            with self.bear():
                value = call()
                self.answered(0.0)
                return value


class Stream:
    """The events behind a point, as they come; outlives absences of Redis as ``patience`` has it."""

    def __init__(self, registry: Registry, seq: str, patience: Patience | None = None) -> None:
        self.seq = seq
        self.patience = patience or Patience()
        self.at_end = False  # no event waited behind those of the last ``take``
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
    """Looks each ``RECORDS`` seconds at the records of what is followed, for an end of which no event tells.

    What a record says counts once it was seen twice: meanwhile every event was read that came before it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._next = 0.0
        self._seen: set[str] = set()

    def twice(self, look: Callable[[], Iterable[str]]) -> set[str]:
        """What ``look`` finds now and found the last time; nothing while it is not time to look."""
        if not self._stream.at_end or time.monotonic() < self._next:
            return set()
        found: set[str] = set()
        with self._stream.patience.bear():
            found = set(look())
        again, self._seen = found & self._seen, found
        self._next = time.monotonic() + RECORDS
        return again


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
