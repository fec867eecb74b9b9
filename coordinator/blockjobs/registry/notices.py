"""Notices of a run's end or of needs for a person, still to be sent.

Notices are durable, sent at least once, and taken by one coordinator at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from blockjobs.model.clock import parse_clock
from blockjobs.model.ids import RunId
from blockjobs.model.notices import public_url
from blockjobs.registry import codec, keys
from blockjobs.registry.clock import read_steady_ms
from blockjobs.registry.connection import Client
from blockjobs.registry.odd import Odd
from blockjobs.registry.scripts import Scripts

OF_NAMES: Final = "@"  # first character of a name in place of a run's id; no run id begins with this character
APPRISE: Final = "apprise:"  # plus yes or no: the time of a coordinator's last report (ms, steady clock)
LATELY: Final = 60_000  # ms; a coordinator reports every 15 s
PAGE = 50  # runs, or notices, handled in one turn


@dataclass(frozen=True, slots=True)
class NoticeView:
    """A notice of a run's end to one recipient; ``url`` is redacted, times in ms."""

    number: int
    outcome: str
    url: str
    state: str  # waiting, sent, failed
    tries: int
    error: str
    at: int
    due: int
    about: str = ""  # the needs, for a notice other than of the run's end

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome, "url": self.url, "state": self.state, "tries": self.tries,
            "error": self.error or None, "at": self.at / 1000 if self.at else None, "about": self.about or None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class TakenNotice:
    """A notice taken by this process for one try; ``url`` in full."""

    run: RunId
    number: int
    taker: str
    tries: int
    url: str
    said: Mapping[str, Any]


class Notices:
    def __init__(self, client: Client, scripts: Scripts, odd: Odd | None = None) -> None:
        self._redis, self._scripts, self._odd = client, scripts, odd or Odd()

    def publish_means(self, *, apprise: bool) -> None:
        """Record, now and then, whether this coordinator can send notices through apprise."""
        self._redis.hset(keys.daemons(), f"{APPRISE}{'yes' if apprise else 'no'}", read_steady_ms(self._redis))

    def has_apprise(self) -> bool | None:
        """Whether every running coordinator can send notices through apprise; None without a recent report."""
        said = self._redis.hmget(keys.daemons(), f"{APPRISE}yes", f"{APPRISE}no")
        steady = read_steady_ms(self._redis)
        can, cannot = (steady - int(at or 0) < LATELY for at in said)
        return False if cannot else True if can else None

    def untold(self) -> list[RunId]:
        """Ended runs with recipients and without notices yet, oldest first."""
        return [RunId(run.decode()) for run in self._redis.zrange(keys.untold(), 0, PAGE - 1)]

    def announce(self, run: RunId, said: Mapping[str, Any], told: list[tuple[str, str]]) -> int:
        """Create a notice for each (outcome, URL), with the message; return the number of notices, 0 if repeated."""
        names = [keys.untold(), keys.notices(), keys.run_notices(run)]
        pairs = [word for pair in told for word in pair]
        match self._scripts.call("notice_add", names, [run, codec.pack_value(dict(said)), *pairs]):
            case [b"announced", number]:
                return int(number)
            case _:
                return 0

    def due(self) -> list[tuple[RunId, int]]:
        """Notices due for a try."""
        now = read_steady_ms(self._redis)
        rows = self._redis.zrangebyscore(keys.notices(), "-inf", now, start=0, num=PAGE)
        found = [self._odd.read(f"notice {row!r}", partial(_parse_due_notice, row)) for row in rows]
        return [notice for notice in found if notice is not None]

    def take(self, run: RunId, number: int, taker: str, *, lease: float) -> TakenNotice | None:
        """Take a notice for a try of less than ``lease`` seconds; None: already taken, or done."""
        args = [f"{number} {run}", number, taker, round(lease * 1000)]
        match self._scripts.call("notice_take", [keys.notices(), keys.run_notices(run)], args):
            case [b"yours", tries, url, message]:
                return self._odd.read(  # an unreadable notice is due again when its lease is over
                    f"notice {number} of run {run}",
                    lambda: TakenNotice(run, number, taker, int(tries), url.decode(), codec.unpack_value(message)),
                )
            case _:
                return None

    def sent(self, taken: TakenNotice) -> bool:
        """Record that the notice was sent; False: the lease is over, and a later try may send the notice again."""
        return self._over(taken, "sent")

    def again(self, taken: TakenNotice, seconds: float, why: str, *, counts: bool = True) -> bool:
        """Schedule another try of an unsent notice; ``counts`` False: this process cut the try off."""
        return self._over(taken, "waiting", seconds, why, counts=counts)

    def failed(self, taken: TakenNotice, why: str) -> bool:
        """Give a notice up."""
        return self._over(taken, "failed", 0, why)

    def _over(self, taken: TakenNotice, state: str, seconds: float = 0, why: str = "", *, counts: bool = True) -> bool:
        names = [keys.notices(), keys.run_notices(taken.run), keys.events()]
        told_of = taken.run.removeprefix(OF_NAMES)
        args = [f"{taken.number} {taken.run}", taken.number, told_of, taken.taker, state, round(seconds * 1000), why]
        return bool(
            self._scripts.call("notice_done", names, [*args, public_url(taken.url), int(counts)])[0] == b"noted"
        )

    def of(self, run: RunId) -> list[NoticeView]:
        """The notices of the end of a run, with their states."""
        record = self._redis.hgetall(keys.run_notices(run))
        count = self._odd.read(f"number of notices of run {run}", lambda: int(record.get(b"count", 0))) or 0
        pipe = self._redis.pipeline(transaction=False)
        for n in range(count):
            pipe.zscore(keys.notices(), f"{n} {run}")
        pipe.get(keys.clock())
        *due, record_of_clock = pipe.execute()

        jumps = parse_clock(record_of_clock).jumps
        at = [0 if score is None else round(score) + jumps for score in due]
        found = [
            self._odd.read(f"notice {n} of run {run}", partial(_notice_view, record, n, at[n])) for n in range(count)
        ]
        return [notice for notice in found if notice is not None]


def _parse_due_notice(row: bytes) -> tuple[RunId, int]:
    number, run = row.decode().split(" ", 1)
    return RunId(run), int(number)


def _notice_view(record: Mapping[bytes, bytes], n: int, due: int) -> NoticeView:
    def text(name: str) -> str:
        return record.get(f"{name}:{n}".encode(), b"").decode()

    return NoticeView(
        n,
        text("outcome"),
        public_url(text("url")),
        text("state"),
        int(text("tries") or 0),
        text("error"),
        int(text("at") or 0),
        due,
        text("about"),
    )
