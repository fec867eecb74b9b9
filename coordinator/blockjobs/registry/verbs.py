"""The verbs of jobs: one script per verb checks, changes, writes the event and wakes.

Refusals carry QEMU's texts.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from blockjobs.model import errors
from blockjobs.model.numbers import milliseconds_of, whole_number
from blockjobs.model.states import Status, Verb
from blockjobs.registry import keys
from blockjobs.registry.clock import read_jumps
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.odd import Odd, Unreadable
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.views import JobPlace, Views


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """The terms of a hold: start and end (ms of Redis' clock; ``until`` 0: no end), and the owner."""

    since: int
    until: int
    owner: str


class Verbs:
    def __init__(self, client: Client, scripts: Scripts, *, internal: bool = False, odd: Odd | None = None) -> None:
        self._redis, self._odd = client, odd or Odd()
        self._views, self._scripts = Views(client, internal=internal, odd=self._odd), scripts

    def pause(
        self, job_id: str, *, reason: str = "user", cause: str = "", owner: str = "", seconds: float = 0.0
    ) -> Status:
        """Hold a job; return the current status.  A job with a live attempt is paused when the attempt reports.

        ``seconds``: the time to the end of the hold, even of a hold set earlier by a different user (0: no end).
        """
        args = [job_id, reason, cause, _new_operation_id(), owner, milliseconds_of(seconds, f"pause of '{job_id}'")]
        reply = self._call(
            "pause", job_id,
            lambda at: [*self._job(at), keys.events(), keys.ready(at.host), keys.rung(at.host), keys.terms()],
            lambda _: args,
        )  # fmt: skip
        if reply[0] == b"already":
            raise errors.Refused("Job is already paused")
        return self._judged(reply, job_id, Verb.PAUSE)

    def resume(self, job_id: str, *, reason: str = "user") -> Status:
        """Lift a hold; return the current status."""
        args = [job_id, reason, _new_operation_id()]
        reply = self._call(
            "resume", job_id, lambda at: [*self._job(at), keys.events(), keys.ready(at.host), keys.terms()],
            lambda _: args,
        )  # fmt: skip
        if reply[0] == b"unheld":
            raise errors.Refused("Can't resume a job that was not paused")
        return self._judged(reply, job_id, Verb.RESUME)

    def terms(self) -> dict[tuple[str, str], HoldTerms]:
        """Owner and end of every hold with an owner or an end, by (job, reason)."""
        return self._terms(read_jumps(self._redis))

    def _terms(self, jumps: int) -> dict[tuple[str, str], HoldTerms]:
        """The terms; with ``jumps`` 0 the ends are by the steady clock."""
        found: dict[tuple[str, str], HoldTerms] = {}
        for row, record in self._redis.hgetall(keys.terms()).items():
            job, _, reason = readable_name(row).partition(" ")
            terms = self._odd.read(f"end of hold '{reason}' of job {job}", partial(_parse_hold_terms, record, jumps))
            found |= {} if terms is None else {(job, reason): terms}
        return found

    def expire(self, now: int) -> list[tuple[str, str]]:
        """End the holds past their end by the steady clock (milliseconds), and forget the terms of lifted holds.

        Returns the ended holds.
        """
        ended = []
        for (job_id, reason), terms in self._terms(0).items():
            try:
                job = self._views.job(job_id)
                if reason in job.holds and job.created <= terms.since:  # otherwise the id belongs to another job by now
                    if 0 < terms.until <= now:
                        self.resume(job_id, reason=reason)
                        ended.append((job_id, reason))
                    continue
            except Unreadable:  # a process that can read the job ends the hold
                continue
            except errors.Refused:
                pass
            self._redis.hdel(keys.terms(), f"{job_id} {reason}")
        return ended

    def complete(self, job_id: str) -> Status:
        """Let a ready job finish; a job on standby finishes after its resume.  Returns the current status."""
        reply = self._call("complete", job_id, self._woken, lambda _: [job_id])
        if reply[0] == b"cannot":
            raise errors.Refused(f"The active block job '{job_id}' cannot be completed")
        return self._judged(reply, job_id, Verb.COMPLETE)

    def cancel(self, job_id: str, *, force: bool = True) -> Status:
        """Cancel a job and with it the whole transaction; refused after the decision.

        Without force, a ready job finishes with a consistent copy and ends as COMPLETED; any other job is cancelled.
        """
        operation = _new_operation_id()
        reply = self._call(
            "cancel", job_id,
            lambda at: [
                keys.job(at.host, at.job), keys.tally(at.host, at.transaction), keys.wake(at.host, at.job),
                keys.txn(at.transaction), keys.events(), keys.ready(at.host), keys.rung(at.host), keys.due(),
                keys.due_wake(), keys.holds(at.host, at.job),
            ],
            lambda at: [job_id, at.transaction, operation, int(force)],
        )  # fmt: skip
        if reply[0] == b"paused":
            raise errors.Refused(f"The block job for device '{job_id}' is currently paused")
        return self._judged(reply, job_id, Verb.CANCEL)

    def set_speed(self, job_id: str, speed: int) -> int:
        """Limit a job to ``speed`` bytes/s (0: no limit); returns the limit before."""
        if not (isinstance(speed, int) and speed < 0):  # QEMU's text for a negative speed comes after the other checks
            whole_number(speed, f"speed of '{job_id}'")
        reply = self._call("set_speed", job_id, self._woken, lambda _: [job_id, speed])
        if reply[0] == b"negative":
            raise errors.Refused("Parameter 'speed' expects a non-negative value")
        if reply[0] == b"set":
            return int(reply[1])
        raise self._refusal(reply, job_id, Verb.SET_SPEED)

    def finalize(self, job_id: str) -> None:
        """Let a pending transaction proceed to its decision."""
        operation = _new_operation_id()
        reply = self._call(
            "finalize", job_id,
            lambda at: [
                keys.job(at.host, at.job), keys.txn(at.transaction), keys.events(), keys.due(), keys.due_wake(),
            ],
            lambda at: [job_id, at.transaction, operation],
        )  # fmt: skip
        if reply[0] != b"finalized":
            raise self._refusal(reply, job_id, Verb.FINALIZE)

    def dismiss(self, job_id: str) -> None:
        """Forget a concluded job; the id becomes free, the record of the run stays."""
        at = self._views.place(job_id)
        names = [
            keys.job(at.host, at.job), keys.holds(at.host, at.job), keys.wake(at.host, at.job), keys.ids(),
            keys.events(),
        ]  # fmt: skip
        reply = self._scripts.call("dismiss", names, [job_id])
        if reply[0] != b"dismissed":
            raise self._refusal(reply, job_id, Verb.DISMISS)

    def _call(
        self,
        script: str,
        job_id: str,
        names: Callable[[JobPlace], list[str]],
        args: Callable[[JobPlace], Sequence[object]],
    ) -> list[Any]:
        """Run a verb's script at the job's place.

        The call is repeated if the job has moved to a different host or transaction meanwhile.
        """
        at = self._views.place(job_id)
        reply = self._scripts.call(script, names(at), args(at))
        if reply[0] == b"missing" and (now := self._views.place(job_id)) != at:
            reply = self._scripts.call(script, names(now), args(now))
        return reply

    @staticmethod
    def _woken(at: JobPlace) -> list[str]:
        return [keys.job(at.host, at.job), keys.wake(at.host, at.job), keys.txn(at.transaction), keys.events()]

    def _job(self, at: JobPlace) -> list[str]:
        return [
            keys.job(at.host, at.job),
            keys.holds(at.host, at.job),
            keys.wake(at.host, at.job),
            keys.txn(at.transaction),
        ]

    def _judged(self, reply: list[Any], job_id: str, verb: Verb) -> Status:
        if reply[0] in (b"refused", b"missing"):
            raise self._refusal(reply, job_id, verb)
        return Status(reply[1].decode())

    def _refusal(self, reply: list[Any], job_id: str, verb: Verb) -> errors.Refused:
        if reply[0] == b"refused":
            return errors.VerbRefused(job_id, reply[1].decode(), verb)
        return errors.NoSuchJob(job_id)


def _parse_hold_terms(record: bytes, jumps: int) -> HoldTerms:
    since, until, owner = record.decode().split(" ", 2)
    return HoldTerms(int(since), int(until) and int(until) + jumps, owner)


def _new_operation_id() -> str:
    """A name for one call of a verb: a call sent twice by the client takes effect once."""
    return uuid.uuid4().hex
