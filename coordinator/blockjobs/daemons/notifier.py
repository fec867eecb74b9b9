"""Notify the targets in run files of the ends of runs, and of conditions that need a person.

The notifier is a thread of the coordinator, and delays no other work.  Any number of notifiers may run, and may die at
any point: a notice is taken by one notifier at a time, taken over after the death of its taker, and sent at least once;
the idempotency key is the same at every try.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import redis

from blockjobs.daemons import loop
from blockjobs.daemons.lookout import Lookout
from blockjobs.model.attention import Thresholds
from blockjobs.model.errors import NoSuchRun
from blockjobs.model.ids import RunId
from blockjobs.model.notices import FAILURES, Failure, RunEnd, again_after, public_url, recipients_of, run_end_body
from blockjobs.model.policies import Verdict
from blockjobs.model.states import Status
from blockjobs.notify.send import LIMIT, Interrupted, send_notice
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.registry.notices import TakenNotice

log = logging.getLogger(__name__)

LANES: Final = 4  # tries side by side: a receiver without an answer keeps a lane for the longest duration of a try
LOOK: Final = 1.0  # seconds between two looks
MARGIN: Final = 10.0  # seconds beyond the longest try until the taker of a notice counts as dead


@dataclass
class Notifier:
    """``delays``: seconds after every failed try but the last.  ``secret``: called at every try, to allow changes."""

    registry: Registry
    delays: Sequence[float]
    secret: Callable[[], str]
    limit: float = LIMIT
    stop: threading.Event = field(default_factory=threading.Event)
    quarantine: Quarantine = field(default_factory=Quarantine)
    limits: Thresholds = field(default_factory=Thresholds)
    lookout: Lookout = field(init=False)
    _lanes: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(LANES, "notice"))
    _tries: set[Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.lookout = Lookout(self.registry, self.limits, self.quarantine.handle)

    def once(self) -> None:
        """Do one turn: announce ended runs, try due notices, and watch for conditions that need a person."""
        for run in self.registry.notices.untold():
            self.quarantine.handle(f"run {run}: the notifications of its end", partial(self.announce, run))
        self._tries = {each for each in self._tries if not each.done()}
        for run, number in self.registry.notices.due()[: LANES - len(self._tries)]:
            take = partial(self.registry.notices.take, run, number, uuid.uuid4().hex, lease=self.limit + MARGIN)
            taken = self.quarantine.handle(f"run {run}: notice {number}", take)
            if taken is not None:
                self._tries.add(self._lanes.submit(self._lane, taken))
        self.lookout.once()
        self.stop.wait(LOOK)

    def announce(self, run: RunId) -> None:
        """Record the targets to notify of a run's end."""
        try:
            view = self.registry.views.run(run)
        except NoSuchRun:  # forgotten meanwhile
            self.registry.notices.announce(run, {}, [])
            return
        outcome, urls = recipients_of(view.fields.notify, verdict := self.registry.views.verdict(run))
        if verdict is not Verdict.FAILED and not view.replaced and not view.fields.part:
            self.registry.names.succeeded(view.name, run)
        if not urls:
            self.registry.notices.announce(run, {}, [])
            return
        ended = RunEnd(
            run=run, name=view.name, verdict=verdict, jobs=view.jobs, failed=view.failed, cancelled=view.cancelled,
            skipped=view.skipped, began=view.published / 1000, ended=view.ended / 1000,
            failures=tuple(self._failures(run)) if view.failed else (), replaced=view.replaced,
        )  # fmt: skip
        if self.registry.notices.announce(run, run_end_body(ended, run), [(outcome, url) for url in urls]):
            log.info("run %s: notification '%s' queued for %s", run, outcome, ", ".join(map(public_url, urls)))

    def _failures(self, run: RunId) -> Iterator[Failure]:
        """The first jobs that failed by themselves and are not dismissed, in the order of the file."""
        left = FAILURES
        for job in self.registry.views.jobs(self.registry.views.places(run)):
            if job.run == run and job.status is Status.CONCLUDED and job.error and not job.cancelled:
                yield Failure(job=job.id, host=job.host, error=job.error)
                if not (left := left - 1):
                    return

    def tell(self, taken: TakenNotice) -> None:
        """Try once to send a notice."""
        who, notices = public_url(taken.url), self.registry.notices
        said = {**taken.said, "notice": f"{taken.run}/{taken.number}"}
        try:
            why = send_notice(taken.url, said, self.secret(), limit=self.limit, stop=self.stop)
        except (OSError, UnicodeDecodeError) as error:
            why = f"the file of the secret cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}"
        except Interrupted:
            notices.again(taken, 0.0, "the coordinator was stopped", counts=False)
            return
        if not why:
            if notices.sent(taken):
                log.info("run %s: notification sent to %s (try %d)", taken.run, who, taken.tries)
        elif (delay := again_after(taken.tries, self.delays)) is None:
            if notices.failed(taken, why):
                log.error(
                    "run %s: notification to %s failed, given up after %d tries: %s", taken.run, who, taken.tries, why
                )
        elif notices.again(taken, delay, why):
            log.warning("run %s: notification to %s failed: %s; next try in %.0f s", taken.run, who, why, delay)

    def _lane(self, taken: TakenNotice) -> None:
        """The edge of a thread: after an error the notice is sent again when the taker counts as dead."""
        try:
            self.tell(taken)
        except redis.RedisError as error:
            log.warning(
                "run %s: result of the notification to %s not recorded: %s", taken.run, public_url(taken.url), error
            )
        except Exception:
            log.exception("run %s: notice %d", taken.run, taken.number)

    def close(self) -> None:
        """Wait for the running tries, cut off by ``stop``; the next notifier goes on with the notices."""
        self._lanes.shutdown(wait=True)


@contextmanager
def run_notifier_beside(
    url: str, delays: Sequence[float], secret: Callable[[], str], limits: Thresholds
) -> Iterator[None]:
    """Send notices during the context, in a thread with a separate connection."""
    with (
        connect_client(url) as client,
        closing(Notifier(Registry(client, internal=True), delays, secret, limits=limits)) as notifier,
        loop.run_beside("notifier", notifier.once, notifier.stop),
    ):
        yield
