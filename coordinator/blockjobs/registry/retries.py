"""Retries of failed jobs in individual transactions, as set in the run file; the run just goes on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import count

from blockjobs.model import ids
from blockjobs.model.barriers import BarrierView
from blockjobs.model.ids import JobId, TxnId
from blockjobs.model.policies import Policy, next_try, retry_after, transaction_name
from blockjobs.registry import codec, history, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import Each, call_unguarded, readable_name
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.views import JobPlace, Views


class Retries:
    def __init__(self, client: Client, scripts: Scripts, views: Views) -> None:
        self._redis, self._scripts, self._views = client, scripts, views

    def retry(self, view: BarrierView) -> None:
        """Start a retry for the member of an aborted and settled transaction; a repeated call is harmless."""
        (host,) = view.shares
        members = self._redis.lrange(keys.members(host, view.txn), 0, -1)
        if not members:  # done by another finalizer
            return
        place = JobPlace(host, JobId(members[0].decode()), view.txn)
        job = self._views.at(place)
        if job is None or job.spec.transaction != view.txn:
            return
        policies = self._views.run(view.run).fields.policies
        policy = policies.get(transaction_name(view.run, view.txn, policies), Policy())
        wait = retry_after(policy.retry_wait, job.tries)
        for number in count(job.tries + 1):
            txn = next_try(view.txn, number, ids.LONGEST)
            spec = replace(job.spec, transaction=txn)
            names = [
                keys.run(view.run), keys.run_jobs(view.run), keys.ids(), keys.events(), keys.unfinished(), keys.due(),
                keys.due_wake(), keys.retries(), keys.job(host, job.id), keys.holds(host, job.id),
                keys.wake(host, job.id),
            ]  # fmt: skip
            for each in (view.txn, txn):
                names += [keys.txn(each), keys.tally(host, each), keys.members(host, each), keys.order(each)]
            args = [
                view.run,
                job.id,
                host,
                view.txn,
                txn,
                codec.pack_value(spec.to_dict()),
                history.pack_history_entry(spec),
                1000 * wait,
            ]
            if self._scripts.call("retry", names, args, start=view.start)[0] != b"taken":
                return

    def begin(self, now: int, each: Each = call_unguarded) -> list[TxnId]:
        """Begin the retries due by the steady clock (milliseconds); return their transactions."""
        rows = [readable_name(row) for row in self._redis.zrangebyscore(keys.retries(), "-inf", now)]
        return [
            TxnId(row) for row in rows if each(f"transaction {row}: its next try", partial(self._begin, TxnId(row)))
        ]

    def _begin(self, txn: TxnId) -> bool:
        names = [keys.txn(txn), keys.retries(), keys.due(), keys.due_wake()]
        return bool(self._scripts.call("begin", names, [txn])[0] == b"begun")
