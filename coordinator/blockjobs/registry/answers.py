"""The part of the registry for a host's steps worker: its share of a transaction, and its answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from blockjobs.model.barriers import preceding_steps
from blockjobs.model.ids import Host, JobId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.registry import codec, keys
from blockjobs.registry.attempts import opened_and_cut, unpack_checkpoint, unreadable_record_text
from blockjobs.registry.connection import Client, is_absence
from blockjobs.registry.owned import unknown_transactions
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.sizes import forget_sizes, last_sizes

log = logging.getLogger(__name__)

MOST_WARNINGS: Final = 20  # warnings of one step
LONGEST_WARNING: Final = 500  # characters
MEMBER: Final = ("spec", "status", "passed", "attempt", "opened", "durable", "result", "cut", "unsettled")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a transaction on this host, with the facts needed by a step.

    ``opened``: the findings of OPEN, with the cut under the key "cut".
    """

    spec: JobSpec
    status: str
    passed: str
    claimed: bool
    opened: Mapping[str, Any]
    durable: Checkpoint
    result: Mapping[str, Any]
    unsettled: bool = False  # a settle of the member failed


@dataclass(frozen=True, slots=True)
class UnreadableMember:
    """A member with a record unreadable for this version: written by a newer version, or damaged.

    ``text`` is the reason.
    """

    job: JobId
    status: str
    passed: str
    claimed: bool
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A host's answer for one member.  ``errno`` 0: done; the ``text`` of a done settle names a target left undefined.

    The ``text`` of a done OPEN or PREPARE holds the job's warnings, one per line (``warning_lines``).  ``reads`` and
    ``writes`` are lock names, one per line: the volume by identity, and behind ``^`` the volumes below.

    ``uncut``: the answer to CUT, given together with OPEN when there is nothing to cut.  With two separate answers the
    registry could ask the host, in between, for a cut unknown to the host.
    """

    job: JobId
    errno: int = 0
    text: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    reads: str = ""
    writes: str = ""
    size: int = 0
    uncut: Mapping[str, Any] | None = None


def warning_lines(warnings: Iterable[str]) -> str:
    """The text of a done answer: warnings about deviations from the request, with no effect on the job."""
    lines = [" ".join(warning.split())[:LONGEST_WARNING] for warning in warnings]
    more = len(lines) - MOST_WARNINGS
    return "\n".join([*lines[:MOST_WARNINGS], *([f"and {more} more warnings"] if more > 0 else [])])


class Answers:
    def __init__(self, client: Client, scripts: Scripts, host: Host) -> None:
        self._redis, self._scripts, self.host = client, scripts, host

    def member_ids(self, txn: TxnId) -> list[JobId]:
        """This host's members, in the order of submission; a move of a job changes the list."""
        return [JobId(job.decode()) for job in self._redis.lrange(keys.members(self.host, txn), 0, -1)]

    def members(self, txn: TxnId, jobs: Sequence[JobId] | None = None) -> list[Member]:
        """This host's readable members, in the order of submission.  ``jobs``: see ``every_member``."""
        return [member for member in self.every_member(txn, jobs) if isinstance(member, Member)]

    def every_member(self, txn: TxnId, jobs: Sequence[JobId] | None = None) -> list[Member | UnreadableMember]:
        """This host's members, in the order of submission.

        ``jobs``: read only these members, if the caller knows the ids.
        """
        if jobs is None:
            jobs = self.member_ids(txn)
        pipe = self._redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hmget(keys.job(self.host, job), MEMBER)
        found = []
        for job, row in zip(jobs, pipe.execute(raise_on_error=False), strict=True):
            if isinstance(row, redis.RedisError):
                if is_absence(row):
                    raise row
                log.error("job %s: its record cannot be read: %s", job, row)
            elif row[0]:
                found.append(_read_member(job, row))
        return found

    def owed(self, job: JobId) -> bool:
        """Whether the registry still waits for this member's OPEN."""
        return job in self.owed_of([job])

    def owed_of(self, jobs: Sequence[JobId]) -> frozenset[JobId]:
        """The members whose OPEN is still awaited by the registry."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hmget(keys.job(self.host, job), "status", "passed")
            found = pipe.execute()
        return frozenset(job for job, each in zip(jobs, found, strict=True) if each == [b"created", b""])

    def decision(self, txn: TxnId) -> tuple[str, int, str]:
        """The decision, its number and the registry's incarnation; ("", 0, ...) before a decision.

        The decision is always read from the registry, never from a message.
        """
        decision, number = self._redis.hmget(keys.txn(txn), "decision", "number")
        incarnation = self._redis.get(keys.incarnation())
        return (decision or b"").decode(), int(number or 0), (incarnation or b"").decode()

    def now(self) -> float:
        """Seconds since the epoch, by Redis' clock."""
        seconds, micros = self._redis.time()
        return float(seconds + micros / 1e6)

    def skew(self, txn: TxnId) -> float | None:
        """Seconds between the first and the last instant of all cuts of a transaction; None without cuts."""
        begin, end = self._redis.hmget(keys.txn(txn), "cut-begin", "cut-end")
        return None if begin is None or end is None else (int(end) - int(begin)) / 1e6

    def needs(self, txn: TxnId) -> dict[int, int]:
        """Bytes needed by the opened members, by device number of their file systems on this host."""
        fields = self._redis.hgetall(keys.tally(self.host, txn))
        return {int(name[5:]): int(needed) for name, needed in fields.items() if name.startswith(b"need:")}

    def last_sizes(self, specs: Iterable[JobSpec]) -> dict[JobId, int]:
        """Bytes taken up by the last committed backup of each job."""
        return last_sizes(self._redis, self.host, specs)

    def forget_sizes(self) -> None:
        """Forget the sizes of backups without a newer backup for a long time."""
        forget_sizes(self._redis, self.host, round(self.now() * 1000))

    def abandoned(self) -> list[TxnId]:
        """Transactions ended without this host, with files possibly left on this host."""
        return [TxnId(txn.decode()) for txn in self._redis.hkeys(keys.abandoned(self.host))]

    def settled(self, txn: TxnId) -> None:
        """Record that no file of an abandoned transaction is left on this host."""
        self._redis.hdel(keys.abandoned(self.host), txn)

    def knows(self, txn: TxnId) -> bool:
        """Whether this registry knows a transaction."""
        return not unknown_transactions(self._redis, self.host, [txn])

    def in_use(self, read: str, written: str) -> bool:
        """Whether a job of this host uses ``read`` or a volume on top of ``read``, or writes ``written``."""
        fields = (f"r:{read}", f"v:{read}", f"s:{read}", f"w:{written}")
        found = self._redis.hmget(keys.locks(self.host), fields)
        return any(lock is not None for lock in found)

    def answer(self, txn: TxnId, step: str, answers: Sequence[Answer]) -> None:
        """Answer a step for some members; a repeated answer is harmless.

        If Redis refuses the answer for one job, because of that job's data, the other answers are still given.
        """
        try:
            self._answer(txn, step, answers)
        except redis.ResponseError as error:
            if is_absence(error) or len(answers) == 1:
                raise
            for each in answers:
                try:
                    self._answer(txn, step, [each])
                except redis.ResponseError as wrong:
                    if is_absence(wrong):
                        raise
                    log.error("job %s: its answer to %s is refused: %s", each.job, step, wrong)

    def _answer(self, txn: TxnId, step: str, answers: Sequence[Answer]) -> None:
        if not answers:
            return
        names = [
            keys.tally(self.host, txn), keys.host_events(self.host), keys.host_due(self.host),
            keys.host_due_wake(self.host), keys.locks(self.host), keys.sizes(self.host),
            *(keys.job(self.host, answer.job) for answer in answers),
        ]  # fmt: skip
        args: list[Any] = [txn, step, preceding_steps(step)]
        for a in answers:
            uncut = "" if a.uncut is None else codec.pack_value(dict(a.uncut))
            args += [a.job, a.errno, a.text, codec.pack_value(dict(a.result)), a.reads, a.writes, a.size, uncut]
        _, *late = (each.decode("utf-8", "replace") for each in self._scripts.call("answer", names, args))
        for job, status, passed in zip(late[::3], late[1::3], late[2::3], strict=True):
            seen = f"it is {status} and has passed {passed or 'nothing'}" if status else "it is no member any more"
            log.info("job %s: its answer to %s changes nothing: %s", job, step, seen)


def _read_member(job: JobId, row: Sequence[bytes | None]) -> Member | UnreadableMember:
    """A member from the fields ``MEMBER`` of the job's hash."""
    spec, status, passed, attempt, opened, durable, result, cut, unsettled = row
    words = (status or b"").decode("utf-8", "replace"), (passed or b"").decode("utf-8", "replace"), bool(attempt)
    try:
        return Member(
            JobSpec.from_dict(codec.unpack_value(spec or b"")),
            *words,
            opened_and_cut(opened, cut),
            unpack_checkpoint(durable or b""),
            codec.unpack_value(result) if result else {},
            bool(unsettled),
        )
    except Exception as error:  # any content by a later version or a fault concerns only this member
        return UnreadableMember(job, *words, unreadable_record_text(job, error))
