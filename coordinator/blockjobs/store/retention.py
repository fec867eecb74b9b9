"""Forgetting: what a run leaves behind goes after a while, whether its jobs were dismissed or not."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from blockjobs.model import errors
from blockjobs.model.ids import RunId, TxnId
from blockjobs.store import keys
from blockjobs.store.connection import Client
from blockjobs.store.verbs import Verbs
from blockjobs.store.views import RunView, Views

KEEP_RUNS: Final = 90 * 24 * 3600 * 1000  # ms
AT_ONCE: Final = 20  # runs forgotten in one call: the caller has other things to do


class Retention:
    def __init__(self, client: Client, verbs: Verbs, views: Views) -> None:
        self._redis, self._verbs, self._views = client, verbs, views

    def forget(self, now_ms: int, *, keep_ms: int = KEEP_RUNS) -> list[RunId]:
        """Forget runs that were published longer ago than ``keep_ms`` and are over; returns which.

        Dismisses their jobs first, so that ids are free and events tell; a call that is cut off is finished by the
        next one.  A run of which a rule keeps targets stays itself, without its jobs: who has to prune it later would
        not know of it.
        """
        gone: list[RunId] = []
        for run in self._old(now_ms - keep_ms):
            view = self._views.run(run)
            self._dismiss(run)
            if self._kept(view):
                self._redis.hset(keys.run(run), "slim", 1)
                continue
            self._redis.delete(keys.run(run), keys.targets(run), keys.left(run), keys.run_notices(run))
            self._redis.zrem(keys.prunes(), run)
            self._redis.zrem(keys.runs(), run)
            gone.append(run)
        return gone

    def _old(self, before_ms: int) -> list[RunId]:
        """Some runs that are old enough, oldest first; none that goes on, or that only waits for its targets.

        Those are left out here: a few mirrors that go on for months are not to stand before all that came after them.
        """
        found = [RunId(name.decode()) for name in self._redis.zrangebyscore(keys.runs(), "-inf", before_ms)]
        pipe = self._redis.pipeline(transaction=False)
        for run in found:
            pipe.hmget(keys.run(run), "slim", "open")
            pipe.hlen(keys.targets(run))
        rows = pipe.execute()
        waiting = zip(found, rows[::2], rows[1::2], strict=True)
        return [
            run for run, (slim, going), targets in waiting if int(going or 0) == 0 and not (slim and targets)
        ][:AT_ONCE]  # fmt: skip

    def _kept(self, view: RunView) -> bool:
        rules = any(policy.keep for policy in view.fields.policies.values())
        return rules and bool(self._redis.hlen(keys.targets(view.id)))

    def _dismiss(self, run: RunId) -> None:
        places = self._views.places(run)
        for view in self._views.jobs(places):
            if view.run == run:  # else its id is another job's by now
                with suppress(errors.Refused):
                    self._verbs.dismiss(view.id)
        transactions: set[TxnId] = {place.transaction for place in places}
        self._redis.delete(*map(keys.txn, transactions), keys.run_jobs(run))
