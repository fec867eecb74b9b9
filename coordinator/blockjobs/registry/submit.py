"""Submit of a run: jobs are staged in batches, invisible, and made real by one field.

A client that dies before publishing leaves only staged, invisible jobs, removed by the reaper.  A client that dies
after publishing leaves a run for the coordinator to launch.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import redis

from blockjobs.model import errors
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import RunFields, transaction_name
from blockjobs.model.runs import RunPlan, check_together
from blockjobs.registry import codec, history, holders, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import Each, call_unguarded, readable_name
from blockjobs.registry.limits import Limits
from blockjobs.registry.names import names_about
from blockjobs.registry.scripts import Scripts

BATCH: Final = 100  # upper bound of jobs touched by one script: 500 held Redis for up to 28 ms
_NOTHING: Final = RunFields()
PATIENCE: Final = 30.0  # seconds of asking whether a run was published, while Redis is away
ASK_AGAIN: Final = 0.2  # seconds between two questions
STAGED_FOR: Final = 120_000  # ms after which a staged run without publishing counts as abandoned


class Submit:
    def __init__(self, client: Client, scripts: Scripts, patience: float = PATIENCE) -> None:
        self._redis, self._scripts, self.patience = client, scripts, patience
        self._limits = Limits(client, scripts)

    def submit(self, plan: RunPlan) -> None:
        """Submit a run as a whole or not at all: stage, publish, launch.

        Raises:
            RunExists: a run of this name was started within the same second.
            JobExists: an id is taken.
            VolumeBusy: another job reads or writes a target, or writes a source.
            JobFault: two jobs of the run do not go together.
            RunGoing, RunSkipped: the run file allows one run of the name at a time, and a run is not over.
            StartUnknown: Redis went away before publishing, and stayed away.
        """
        specs = plan.jobs
        check_together(specs, allow_in_place=plan.allow_in_place)
        self._check_line(plan)
        owner = uuid.uuid4().hex
        try:
            for batch in split_batches(specs):
                self.stage(plan, batch, owner)
            for name, store in plan.fields.stores.items():  # before the first copy that the store limits
                self._limits.set_store(name, path=store.path, jobs=store.jobs, speed=store.speed, by=f"run {plan.run}")
            self._publish_surely(plan)
        except BaseException:  # also Ctrl-C: staged jobs would hold their ids and volumes for two minutes
            with suppress(redis.RedisError):
                self.unstage(plan.run, [(spec.host, spec.id, spec.transaction) for spec in specs], owner)
            raise
        with suppress(redis.ConnectionError, redis.TimeoutError):  # the run is published: the coordinator launches it
            self.launch(plan.run)

    def _publish_surely(self, plan: RunPlan) -> None:
        """Publish, and repeat the call if the reply was lost, as the run may be published already.

        Raises:
            StartUnknown: Redis stayed away.
        """
        until, doubt = time.monotonic() + self.patience, False
        # A rerun carries the terms of an earlier run file: a success says nothing about the name.
        fields = replace(plan.fields, part=True) if plan.retries else plan.fields
        while True:
            try:
                self.publish(plan.run, len(plan.jobs), plan.name, fields)
            except redis.RedisError as error:  # once in doubt, an error reply proves nothing
                doubt |= isinstance(error, redis.ConnectionError | redis.TimeoutError)
                if not doubt:
                    raise
                if time.monotonic() > until:
                    raise errors.StartUnknown(plan.run, str(error)) from None
                time.sleep(ASK_AGAIN)
            else:
                return

    def _check_line(self, plan: RunPlan) -> None:
        """Check the line before staging, so that a refusal names the active run and not a volume in use by the run."""
        if plan.fields.on_overlap in ("refuse", "skip"):
            line = self._redis.hget(keys.lines(), plan.name)
            if line:
                raise _overlap_error(plan.name, plan.fields, line.decode().split(" ")[0])

    def stage(self, plan: RunPlan, specs: Sequence[JobSpec], owner: str = "") -> None:
        """Stage some jobs of a run; ``owner`` is unique to this submit and the same in every batch."""
        args: list[Any] = [plan.run, codec.pack_value(_run_fields(plan)), owner]
        policies = plan.fields.policies
        for spec in specs:
            name = transaction_name(spec.run, spec.transaction, policies)
            args += [
                spec.id,
                spec.host,
                spec.transaction,
                codec.pack_value(spec.to_dict()),
                spec.type,
                spec.speed,
                int(spec.auto_finalize),
                int(spec.auto_dismiss),
                spec.source.lock,
                spec.target.lock,
                name,
                history.pack_history_entry(spec),
                spec.store,
                policies[name].retry if name in policies else 0,
            ]
        match self._scripts.call("stage", self._keys(plan.run, [(s.host, s.id, s.transaction) for s in specs]), args):
            case [b"staged", _]:
                pass
            case [b"exists", job_id]:
                raise errors.JobExists(job_id.decode())
            case [b"busy", text, holder]:
                raise errors.VolumeBusy(text.decode(), holder.decode(), holders.type_of(self._redis, holder.decode()))
            case _:
                raise errors.RunExists(plan.run)

    def publish(self, run_id: RunId, jobs: int, name: str = "", fields: RunFields = _NOTHING) -> None:
        """Make a staged run real; behind an active run of ``name`` it waits or is refused, as set in ``fields``."""
        names = [
            keys.run(run_id), keys.staged(), keys.runs(), keys.launches(), keys.events(), keys.lines(),
            keys.deadlines(), keys.watched(), keys.names(),
        ]  # fmt: skip
        args = [
            run_id, jobs, sum(len(each.jobs) for each in fields.skipped),
            int(any(fields.notify.values()) or bool(fields.overdue)),
            name if fields.on_overlap else "", fields.on_overlap, round(fields.deadline * 1000),
            int(bool(fields.notify.get("attention"))),
            fields.overdue if fields.on_overlap and not fields.part else "", names_about(fields),
        ]  # fmt: skip
        match self._scripts.call("publish", names, args):
            case [b"incomplete", staged]:
                raise errors.Refused(f"run '{run_id}': only {staged.decode()} of {jobs} jobs are staged")
            case [b"going", run]:
                raise _overlap_error(name, fields, run.decode())
            case _:
                pass

    def unstage(self, run_id: RunId, places: Sequence[tuple[Host, JobId, TxnId]], owner: str = "") -> None:
        """Remove the jobs staged by ``owner``; "": by any owner."""
        for batch in split_batches(places):
            self._scripts.call("unstage", self._keys(run_id, batch), [run_id, owner, *(job for _, job, _ in batch)])

    def launch(self, run_id: RunId) -> None:
        """Make the jobs of a published run CREATED, and hand their transactions to the finalizer.

        A repeated call is harmless.
        """
        names = [keys.run(run_id), keys.events(), keys.unfinished(), keys.due(), keys.due_wake()]
        places = self._places(run_id)
        last = {txn: job for _, job, txn in places}
        for batch in split_batches(places):
            jobs = [keys.job(host, job) for host, job, _ in batch]
            words = [word for _, job, txn in batch for word in (job, txn, int(last[txn] == job))]
            self._scripts.call("launch", names + jobs, words)
        self._redis.zrem(keys.launches(), run_id)

    def advance(self, each: Each = call_unguarded) -> list[RunId]:
        """Launch the runs at the head of their line: earlier runs of the name are over."""
        lines = self._redis.hgetall(keys.lines())
        found = [each(f"line {readable_name(name)}", partial(self._advance, name, lines[name])) for name in lines]
        return [run for run in found if run]

    def _advance(self, name: bytes, line: bytes) -> RunId | None:
        """Launch the first run of a line, unless launched before."""
        run = RunId(line.decode().split(" ")[0])
        names = [keys.lines(), keys.run(run), keys.launches(), keys.events()]
        if self._scripts.call("advance", names, [name, run])[0] != b"launched":
            return None
        self.launch(run)
        return run

    def recover(self, now_ms: int, each: Each = call_unguarded) -> None:
        """Finish the work of dead clients: launch published runs, remove runs only staged."""
        self.advance(each)
        for row in self._redis.zrange(keys.launches(), 0, -1):
            each(f"run {readable_name(row)}: its launch", partial(self._launch, row))
        for row in self._redis.zrangebyscore(keys.staged(), "-inf", now_ms - STAGED_FOR):
            each(f"run {readable_name(row)}: what was staged of it", partial(self._remove_staged, row))

    def _launch(self, row: bytes) -> None:
        self.launch(RunId(row.decode()))

    def _remove_staged(self, row: bytes) -> None:
        run = RunId(row.decode())
        self.unstage(run, list(self._places(run)))
        self._redis.zrem(keys.staged(), row)

    def _places(self, run_id: RunId) -> list[tuple[Host, JobId, TxnId]]:
        rows = (row.decode().split(" ") for row in self._redis.lrange(keys.run_jobs(run_id), 0, -1))
        return [(Host(host), JobId(job), TxnId(txn)) for host, job, txn in rows]

    def _keys(self, run_id: RunId, places: Sequence[tuple[Host, JobId, TxnId]]) -> list[str]:
        names = [keys.run(run_id), keys.run_jobs(run_id), keys.staged(), keys.ids(), keys.texts()]
        for host, job, txn in places:
            names += [
                keys.job(host, job),
                keys.holds(host, job),
                keys.tally(host, txn),
                keys.members(host, txn),
                keys.txn(txn),
                keys.order(txn),
            ]
        return names


def _run_fields(plan: RunPlan) -> dict[str, Any]:
    more = {"retries": plan.retries, "layered": any(map(history.target_layers, plan.jobs))}
    return {"name": plan.name, "grouped": plan.grouped, **plan.fields.to_dict(), **more}


def _overlap_error(name: str, fields: RunFields, going: str) -> errors.RunGoing:
    kind = errors.RunSkipped if fields.on_overlap == "skip" else errors.RunGoing
    return kind(name, going)


def split_batches(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
