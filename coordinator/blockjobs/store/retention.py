"""Forgetting: what a run leaves behind goes after a while, whether its jobs were dismissed or not."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from blockjobs.model import errors
from blockjobs.model.ids import RunId, TxnId
from blockjobs.store import keys
from blockjobs.store.connection import Client
from blockjobs.store.verbs import Verbs
from blockjobs.store.views import Views

KEEP_RUNS: Final = 90 * 24 * 3600 * 1000  # ms
AT_ONCE: Final = 20  # runs forgotten in one call: the caller has other things to do


class Retention:
    def __init__(self, client: Client, verbs: Verbs, views: Views) -> None:
        self._redis, self._verbs, self._views = client, verbs, views

    def forget(self, now_ms: int, *, keep_ms: int = KEEP_RUNS) -> list[RunId]:
        """Forget runs that were published longer ago than ``keep_ms`` and are over; returns which.

        Dismisses their jobs first, so that ids are free and events tell; a call that is cut off is finished by the
        next one.
        """
        gone = []
        for name in self._redis.zrangebyscore(keys.runs(), "-inf", now_ms - keep_ms, start=0, num=AT_ONCE):
            run = RunId(name.decode())
            if self._views.run(run).open:
                continue
            places = self._views.places(run)
            for view in self._views.jobs(places):
                if view.run == run:  # else its id is another job's by now
                    with suppress(errors.Refused):
                        self._verbs.dismiss(view.id)
            transactions: set[TxnId] = {place.transaction for place in places}
            self._redis.delete(*map(keys.txn, transactions), keys.run_jobs(run), keys.run_notices(run), keys.run(run))
            self._redis.zrem(keys.runs(), run)
            gone.append(run)
        return gone
