"""Retention: the records of a run are deleted after a while, dismissed or not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from blockjobs.model import errors
from blockjobs.model.ids import RunId
from blockjobs.registry import keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import Each, call_unguarded
from blockjobs.registry.verbs import Verbs
from blockjobs.registry.views import Views

KEEP_RUNS: Final = 90 * 24 * 3600 * 1000  # ms
AT_ONCE: Final = 20  # runs forgotten in one call: the caller has further duties
SLICE: Final = 200  # jobs dismissed in one call


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The runs forgotten by one call, and whether the next call has work left."""

    runs: Sequence[RunId] = ()
    more: bool = False


class Retention:
    def __init__(self, client: Client, verbs: Verbs, views: Views) -> None:
        self._redis, self._verbs, self._views = client, verbs, views

    def forget(self, now_ms: int, *, keep_ms: int = KEEP_RUNS, each: Each = call_unguarded) -> Forgotten:
        """Forget finished runs published longer ago than ``keep_ms``, a slice of the jobs per call.

        Jobs are dismissed first, to free the ids and write the events; the next call finishes an interrupted call.  A
        run with targets kept by a rule stays without its jobs, as the later prune needs the run's record.
        """
        gone: list[RunId] = []
        runs, jobs = AT_ONCE, SLICE
        for run in self._old(now_ms - keep_ms):
            dismissed = each(f"run {run}: its end of retention", partial(self._dismiss, run, jobs))
            if dismissed is None:
                continue
            runs, jobs = runs - 1, jobs - dismissed
            if jobs > 0 and each(f"run {run}: its end of retention", partial(self._remove, run)):
                gone.append(run)
            if runs <= 0 or jobs <= 0:
                return Forgotten(gone, more=True)
        return Forgotten(gone)

    def _remove(self, run: RunId) -> bool:
        """Forget a run without jobs, unless a rule keeps targets of the run."""
        if self._kept(run):
            self._redis.hset(keys.run(run), "slim", 1)
            return False
        with self._redis.pipeline(transaction=True) as pipe:  # a run id without a record would stay forever
            pipe.delete(keys.run(run), keys.targets(run), keys.left(run), keys.run_notices(run), keys.run_jobs(run))
            pipe.zrem(keys.prunes(), run)
            pipe.zrem(keys.runs(), run)
            pipe.execute()
        return True

    def _old(self, before_ms: int) -> list[RunId]:
        """The finished runs older than the limit, oldest first, without runs kept only for their targets.

        Active runs are left out: a few mirrors that run for months would otherwise stand before every later run.
        """
        found = [RunId(name.decode()) for name in self._redis.zrangebyscore(keys.runs(), "-inf", before_ms)]
        pipe = self._redis.pipeline(transaction=False)
        for run in found:
            pipe.hmget(keys.run(run), "slim", "open")
            pipe.hlen(keys.targets(run))
        rows = pipe.execute(raise_on_error=False)
        return [
            run for run, terms, targets in zip(found, rows[::2], rows[1::2], strict=True) if _is_over(terms, targets)
        ]

    def _kept(self, run: RunId) -> bool:
        try:
            policies = self._views.run(run).fields.policies
        except errors.NoSuchRun:  # an earlier call was cut off
            return False
        return any(policy.keep for policy in policies.values()) and bool(self._redis.hlen(keys.targets(run)))

    def _dismiss(self, run: RunId, most: int) -> int:
        """Dismiss the first jobs of a run, remove them from the run's list, and return their number."""
        places = self._views.places(run, most)
        for view in self._views.jobs(places):
            if view.run == run:  # otherwise the id belongs to another job by now
                with suppress(errors.Refused):
                    self._verbs.dismiss(view.id)
        if places:
            self._redis.delete(*{keys.txn(place.transaction) for place in places})
            self._redis.ltrim(keys.run_jobs(run), len(places), -1)  # last: the next call repeats an interrupted call
        return len(places)


def _is_over(terms: Any, targets: Any) -> bool:
    """Whether a run is over, from ``slim``, the number of open jobs, and the number of targets.

    An unreadable run counts as over: the following steps then name the fault.
    """
    if isinstance(terms, Exception) or isinstance(targets, Exception):
        return True
    slim, going = terms
    return (going or b"0") == b"0" and not (slim and targets)
