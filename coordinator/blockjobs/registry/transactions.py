"""The finalizer's part of the registry: due transactions, the view to decide on, and the effects of a decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import redis

from blockjobs.model.barriers import BarrierView, Decision, HostTally, preceding_steps
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.registry import keys
from blockjobs.registry.connection import Client, is_absence
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.submit import split_batches

DUE_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Due:
    """A transaction to look at, and its score at the read."""

    txn: TxnId
    score: float


class Transactions:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def wait(self, seconds: float, hosts: Iterable[Host] = ()) -> bool:
        """Block until a transaction becomes due, in the registry or on one of these hosts; False after ``seconds``."""
        wakes = [keys.host_due_wake(host) for host in hosts]
        try:
            return self._redis.blpop([keys.due_wake(), *wakes], timeout=seconds) is not None
        except redis.ResponseError as error:
            if is_absence(error):
                raise
            self._drop_odd_wakes(wakes)
            self._redis.blpop([keys.due_wake()], timeout=seconds)
            return True

    def _drop_odd_wakes(self, wakes: Sequence[str]) -> None:
        """Delete keys of a type other than list: a worker writes only lists, and the wait would fail for every host."""
        pipe = self._redis.pipeline(transaction=False)
        for wake in wakes:
            pipe.type(wake)
        if odd := [wake for wake, kind in zip(wakes, pipe.execute(), strict=True) if kind not in (b"list", b"none")]:
            self._redis.delete(*odd)

    def due(self, hosts: Iterable[Host] = ()) -> list[Due]:
        """The due transactions, the longest wait first, after adding the requests of these hosts."""
        rows = self._scripts.call("due", [keys.due(), keys.due_wake()], [DUE_PAGE, *hosts])[1:]
        return [Due(TxnId(txn.decode()), float(score)) for txn, score in zip(rows[::2], rows[1::2], strict=True)]

    def remind(self) -> None:
        """Make every unfinished transaction due again, to find forgotten transactions."""
        self.remind_of([TxnId(txn.decode()) for txn in self._redis.zrange(keys.unfinished(), 0, -1)])

    def remind_of(self, txns: Sequence[TxnId]) -> None:
        """Make these transactions due now."""
        for page in split_batches(txns):
            self._scripts.call("remind", [keys.due(), keys.due_wake()], page)

    def view(self, txn: TxnId, start: str = "") -> BarrierView | None:
        """The view of a transaction for the pure core; None for an unknown transaction.

        ``start``: the last start of Redis (its run id) before this call.  Actions on the view are valid only for this
        start, else ``Restarted`` is raised; "": for any start.
        """
        record = {k.decode(): v.decode() for k, v in self._redis.hgetall(keys.txn(txn)).items()}
        if not record:
            return None
        hosts = [Host(name[5:]) for name in record if name.startswith("host:")]
        pipe = self._redis.pipeline(transaction=False)
        for host in hosts:
            pipe.hgetall(keys.tally(host, txn))
        pipe.hget(keys.run(RunId(record["run"])), "queued")
        *rows, queued = pipe.execute()
        shares = [HostTally.of({k.decode(): int(v) for k, v in share.items()}) for share in rows]
        return BarrierView(
            txn=txn,
            run=RunId(record["run"]),
            rev=int(record["rev"]),
            decision=Decision(record["decision"]) if "decision" in record else None,
            number=int(record.get("number", 0)),
            manual="manual" in record,
            finalized="finalized" in record,
            cursor=int(record.get("cursor") or -1),
            jobs=int(record["jobs"]),
            shares=dict(zip(hosts, shares, strict=True)),
            barrier=record.get("barrier", ""),
            waits="queued" if queued else "retry" if "begins" in record else "",
            retry=int(record.get("retry", 0)),
            start=start,
        )

    def members(self, host: Host, txn: TxnId) -> list[JobId]:
        return [JobId(job.decode()) for job in self._redis.lrange(keys.members(host, txn), 0, -1)]

    def barrier(self, txn: TxnId, name: str, doubt: str = "") -> None:
        """Record the current step of a transaction for readers; ``doubt``: why the transaction is not decided."""
        self._scripts.call("barrier", [keys.txn(txn)], [name, doubt])

    def start(self, view: BarrierView, host: Host) -> None:
        instants = view.cut or ("", "")
        for batch in split_batches(self.members(host, view.txn)):
            names = [keys.tally(host, view.txn), keys.events(), keys.ready(host), keys.txn(view.txn), keys.holding()]
            names += [key for job in batch for key in (keys.job(host, job), keys.holds(host, job))]
            self._scripts.call("start", names, [view.txn, *instants, view.crash, *batch], start=view.start)

    def pend(self, view: BarrierView, host: Host) -> None:
        for batch in split_batches(self.members(host, view.txn)):
            names = [keys.tally(host, view.txn), keys.events(), keys.txn(view.txn)]
            jobs = [keys.job(host, job) for job in batch]
            self._scripts.call("pend", names + jobs, [view.txn, *batch], start=view.start)

    def settle(self, view: BarrierView, decision: Decision, why: str) -> int:
        """Write the decision, if the view is unchanged; return its number, 0: the transaction changed, look again."""
        names = [keys.txn(view.txn), keys.decisions(), keys.events()]
        verdict, *more = self._scripts.call("settle", names, [view.txn, decision, view.rev, why], start=view.start)
        return int(more[1]) if verdict == b"decided" else 0

    def stop(self, view: BarrierView, host: Host) -> None:
        for batch in split_batches(self.members(host, view.txn)):
            names = [keys.tally(host, view.txn), keys.events(), keys.ready(host), keys.rung(host)]
            names += [key for job in batch for key in (keys.job(host, job), keys.wake(host, job))]
            self._scripts.call("stop", names, [view.txn, *batch], start=view.start)

    def fail(self, view: BarrierView, host: Host, step: str, errno: int, text: str) -> None:
        """Give up a host that owes ``step``: the members that owe the step fail with ``text``."""
        for batch in split_batches(self.members(host, view.txn)):
            names = [
                keys.tally(host, view.txn), keys.events(), keys.due(), keys.due_wake(), keys.txn(view.txn),
                *(keys.job(host, job) for job in batch),
            ]  # fmt: skip
            args = [view.txn, step, preceding_steps(step), errno, text, *batch]
            self._scripts.call("fail", names, args, start=view.start)

    def abandon(self, host: Host) -> int:
        """End every member of a host for good, in all transactions; return the number of ended members."""
        text = f"host {host} was abandoned"
        done = f"{text}: it was decided to commit, and whether it published the target is unknown"
        ended = 0
        for row in self._redis.zrange(keys.unfinished(), 0, -1):
            txn = TxnId(row.decode())
            for batch in split_batches(self.members(host, txn)):
                names = [
                    keys.tally(host, txn), keys.events(), keys.due(), keys.due_wake(), keys.locks(host), keys.txn(txn),
                    keys.attempts(host), keys.fences(host), keys.ready(host), keys.rung(host),
                    keys.abandoned(host),
                ]  # fmt: skip
                names += [key for job in batch for key in (keys.job(host, job), keys.holds(host, job))]
                ended += self._scripts.call("abandon", names, [txn, text, done, *batch])[1]
        return ended

    def conclude(self, view: BarrierView, hosts: frozenset[Host]) -> None:
        """Conclude settled members of these hosts, newest first, in batches; the cursor records the progress."""
        rows = [row.decode().split(" ") for row in self._redis.lrange(keys.order(view.txn), 0, -1)]
        whole = len(hosts) == len(view.shares)
        first = view.cursor if whole and view.cursor >= 0 else len(rows)
        newest = [(Host(h), JobId(j), n) for n, (h, j) in reversed(list(enumerate(rows))) if n < first and h in hosts]
        for batch in split_batches(newest):
            names = [
                keys.run(view.run), keys.events(), keys.texts(), keys.ids(), keys.txn(view.txn),
                keys.targets(view.run), keys.prunes(), keys.untold(), keys.lines(),
            ]  # fmt: skip
            for host, job, _ in batch:
                names += [
                    keys.job(host, job),
                    keys.tally(host, view.txn),
                    keys.holds(host, job),
                    keys.wake(host, job),
                ]
            cursor = batch[-1][2] if whole else -1
            args = [view.run, view.txn, cursor, *(job for _, job, _ in batch)]
            self._scripts.call("conclude", names, args, start=view.start)

    def close(self, due: Due, view: BarrierView | None, *, finished: bool, start: str = "") -> None:
        """Remove a transaction from the due list unless due again; forget the tallies of a finished transaction.

        ``start``: the start of the view, given separately as an unknown transaction has no view.
        """
        forget: Sequence[str] = ()
        if finished and view is not None:
            parts = [(keys.tally(host, due.txn), keys.members(host, due.txn)) for host in view.shares]
            forget = [keys.order(due.txn), *(key for pair in parts for key in pair)]
        self._scripts.call(
            "close",
            [keys.due(), keys.unfinished(), keys.txn(due.txn), keys.retries(), *forget],
            [due.txn, due.score, int(finished)],
            start=start,
        )
