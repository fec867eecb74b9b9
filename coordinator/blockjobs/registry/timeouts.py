"""Ends by the clock: a run's deadline, a run's replacement in line, and the wait for repair of an I/O error."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from blockjobs.model import errors
from blockjobs.model.ids import Host, JobId, RunId
from blockjobs.model.policies import RunFields, replaced_text, span_text
from blockjobs.model.states import Status
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import Each, call_unguarded, readable_name
from blockjobs.registry.events import Event
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.submit import split_batches
from blockjobs.registry.views import JobPlace, Views

AT_ONCE: Final = 100  # jobs handled in one call


class CalledOff(NamedTuple):
    """The number of ended jobs, and of jobs left alone because of further holds."""

    jobs: int = 0
    held: int = 0


class Timeouts:
    def __init__(self, client: Client, scripts: Scripts, views: Views) -> None:
        self._redis, self._scripts, self._views = client, scripts, views

    def over(self, runs: Collection[RunId], jobs: Collection[str]) -> None:
        """Forget the timers of runs and jobs that ended according to the records: an event alone ends no deadline.

        Other timers are removed when due.
        """
        for run in runs:
            if self._redis.hget(keys.run(run), "ended") is not None:
                self._redis.zrem(keys.deadlines(), run)
        asked = list(jobs)
        stopped = self._redis.zmscore(keys.stopped(), asked) if asked else []
        for job in [job for job, score in zip(asked, stopped, strict=True) if score is not None]:
            if self._is_over(job):
                self._redis.zrem(keys.stopped(), job)

    def _is_over(self, job: str) -> bool:
        """Whether a job is concluded, or gone."""
        try:
            return self._views.published(job)[1] is Status.CONCLUDED
        except errors.NoSuchJob:
            return True

    # --- deadlines --------------------------------------------------------------------------------------

    def late(self, now: int, each: Each = call_unguarded) -> list[tuple[RunId, str]]:
        """Call off the runs replaced in line, and the runs past their deadline by the steady clock (milliseconds).

        Returns the runs, with reasons.
        """
        rows = [readable_name(row) for row in self._redis.zrangebyscore(keys.deadlines(), "-inf", now)]
        found = [(RunId(row), each(f"run {row}: its deadline", partial(self._late, RunId(row)))) for row in rows]
        return [(run, why) for run, why in found if why]

    def _late(self, run: RunId) -> str:
        """Call off one run and return the reason; "": the run is over, or was called off before."""
        fields, ended, replaced = self._redis.hmget(keys.run(run), ["fields", "ended", "replaced"])
        if fields is None or ended:
            self._redis.zrem(keys.deadlines(), run)
            return ""
        if replaced:
            why = replaced_text(replaced.decode())
        else:
            why = f"deadline of {span_text(RunFields.from_dict(codec.unpack_value(fields)).deadline)} passed"
        return why if self.call_off_run(run, why) else ""

    def call_off_run(self, run: RunId, why: str) -> int:
        """Cancel every job of a run, except concluded and decided jobs; return the number.

        A repeated call is harmless.
        """
        if self._scripts.call("late", [keys.run(run), keys.events()], [run, why])[0] != b"late":
            return 0
        n, seen = 0, None
        # Repeated while the places change: a job about to be retried has a new place now.
        while (places := self._views.places(run)) != seen:
            n += self._call_off(places, why).jobs
            seen = places
        self._redis.zrem(keys.deadlines(), run)  # last: the next call repeats an interrupted call
        return n

    # --- unrepaired errors --------------------------------------------------------------------------------

    def stopped(self, event: Event) -> None:
        """Set the timer of a job stopped by an error, if its run has a hold timeout."""
        fields = self._redis.hget(keys.run(RunId(event.run)), "fields")
        seconds = RunFields.from_dict(codec.unpack_value(fields)).hold_timeout if fields else 0
        since = self._redis.hget(keys.job(Host(event.host), JobId(event.id)), "stopped-at") if seconds else None
        if since is not None:  # otherwise resumed, or the end was seen at the same time
            self._redis.zadd(keys.stopped(), {event.id: int(since) + 1000 * seconds})

    def waited(self, now: int, each: Each = call_unguarded) -> list[str]:
        """Give up the jobs not resumed in time by the steady clock (milliseconds); return their ids.

        A job with a further hold is left alone: a person is at work on the job.
        """
        given_up = []
        for row in self._redis.zrangebyscore(keys.stopped(), "-inf", now, start=0, num=AT_ONCE):
            job = readable_name(row)
            ended = each(f"job {job}: its hold timeout", partial(self._give_up, job, now))
            given_up += [job] * bool(ended and ended.jobs)
            if ended is None or ended.held:  # later, to let the jobs behind this job have a turn
                self._redis.zadd(keys.stopped(), {row: now + 1000})
            else:
                self._redis.zrem(keys.stopped(), row)
        return given_up

    def _give_up(self, job: str, now: int) -> CalledOff:
        """End one job not resumed in time, if still stopped."""
        with suppress(errors.NoSuchJob):
            at = self._views.place(job)
            text, errno = self._redis.hmget(keys.job(at.host, at.job), ["stopped-by", "stopped-errno"])
            fields = self._redis.hget(keys.run(self._views.job(job).run), "fields")
            seconds = RunFields.from_dict(codec.unpack_value(fields)).hold_timeout if fields else 0
            if text and seconds:
                why = f"{text.decode()}; nobody resumed it for {span_text(seconds)}"
                return self._call_off([at], why, errno=int(errno or 0), stopped_before=now - seconds * 1000)
        return CalledOff()

    def _call_off(
        self, places: Iterable[JobPlace], why: str, *, errno: int = 0, stopped_before: int | None = None
    ) -> CalledOff:
        done, held = 0, 0
        for batch in split_batches(list(places)):
            names = [keys.events(), keys.due(), keys.due_wake(), *_keys_of_jobs(batch)]
            words = [word for at in batch for word in (at.job, at.transaction)]
            args = [why, errno, "" if stopped_before is None else stopped_before, *words]
            _, n, also = self._scripts.call("call_off", names, args)
            done, held = done + n, held + also
        return CalledOff(done, held)


def _keys_of_jobs(batch: Sequence[JobPlace]) -> list[str]:
    return [
        key
        for at in batch
        for key in (
            keys.job(at.host, at.job),
            keys.tally(at.host, at.transaction),
            keys.wake(at.host, at.job),
            keys.txn(at.transaction),
            keys.ready(at.host),
            keys.rung(at.host),
            keys.holds(at.host, at.job),
        )
    ]
