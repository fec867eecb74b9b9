"""The part of the registry for attempts and their host's watcher: claim, checkpoint, error, finish, release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from errno import EINVAL, EIO
from typing import Any, Final

import redis

from blockjobs.model import errors
from blockjobs.model.hanging import hanging_under
from blockjobs.model.ids import Host, JobId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec, Orders, Salvaged
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.facts import read_hanging
from blockjobs.registry.scripts import Scripts

LEASE: Final = 15.0  # seconds without a checkpoint (normally every two seconds) until an attempt is fenced
KNOCK: Final = 10  # seconds until an unread knock expires
POISON: Final = 3  # lost attempts in a row, without new durable data, that fail a job


@dataclass(frozen=True, slots=True)
class Who:
    """The process of an attempt; ``started`` (seconds after the boot) and the boot distinguish a reused pid."""

    attempt: str
    pid: int
    started: float
    boot: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The input of an attempt: token, job, findings of OPEN (with the cut as "cut"), and the last checkpoint."""

    token: int
    attempt: str
    spec: JobSpec
    opened: Mapping[str, Any]
    durable: Checkpoint
    speed: int
    number: int  # the number of the attempt, from 1 for the first attempt of the job
    offset: int  # the offset reached by the previous attempt
    counts: Mapping[str, int]  # bytes read, written, ... by all previous attempts


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a copy.  ``counts``: bytes read, written, zero, skipped, recopied."""

    offset: int = 0
    len: int = 0
    counts: Mapping[str, int] | None = None


class Attempts:
    """``waiting``: a client with blocking commands."""

    def __init__(self, client: Client, scripts: Scripts, host: Host, waiting: Client) -> None:
        self._redis, self._scripts, self.host, self._waiting = client, scripts, host, waiting

    def claim(self, job_id: JobId, who: Who) -> Claim | str:
        """Claim the job, or return why the job is not available (a late or repeated doorbell is no error)."""
        names = [
            keys.job(self.host, job_id), keys.ready(self.host), keys.rung(self.host), keys.attempts(self.host),
            keys.host_events(self.host), keys.wake(self.host, job_id), keys.card(self.host),
        ]  # fmt: skip
        packed = codec.pack_value([who.attempt, who.pid, who.started, who.boot])
        match self._scripts.call("claim", names, [job_id, who.attempt, packed]):
            case [b"claimed", *answer]:
                try:
                    return _claim_of(who.attempt, answer)
                except Exception as error:  # any content by a later version or a fault
                    text = unreadable_record_text(job_id, error)
                self._fail_unreadable(job_id, int(answer[0]), who.attempt, text)
                return text
            case [b"state", status]:
                return f"it is {status.decode()}"
            case [b"unrung"]:
                return "its doorbell came too late"
            case [b"held"]:
                return "another attempt has it"
            case _:
                return "it is gone"

    def _fail_unreadable(self, job_id: JobId, token: int, attempt: str, text: str) -> None:
        """End a claimed job with a record unreadable for this version, through its first attempt."""
        txn, offset, length, counts = self._redis.hmget(keys.job(self.host, job_id), "txn", "offset", "len", "bytes")
        names = self._finish_keys(job_id, TxnId((txn or b"").decode()))
        args = [
            job_id, token, attempt, txn or "", -EINVAL, text, offset or 0, length or 0, counts or "", "",
            codec.pack_value({}),
        ]  # fmt: skip
        self._scripts.call("finish", names, args)

    def _finish_keys(self, job_id: JobId, txn: TxnId) -> list[str]:
        return [
            keys.job(self.host, job_id),
            keys.tally(self.host, txn),
            keys.host_events(self.host),
            keys.attempts(self.host),
            keys.host_due(self.host),
            keys.host_due_wake(self.host),
            keys.holds(self.host, job_id),
            keys.fences(self.host),
        ]

    def held_back(self, job_id: JobId) -> str:
        """A hanging path on a file system of the job, if the job has to wait for the end of the hang; "" without one.

        The job's doorbell is then forgotten: the coordinator rings again when the path no longer hangs.
        """
        hanging = read_hanging(self.host, self._redis.hget(keys.card(self.host), "facts"))
        spec = self._redis.hget(keys.job(self.host, job_id), "spec") if hanging else None
        try:
            under = hanging_under(hanging, JobSpec.from_dict(codec.unpack_value(spec))) if spec else None
        except Exception:  # the claim reports the unreadable record
            return ""
        if under is None:
            return ""
        self._redis.zrem(keys.rung(self.host), job_id)
        return under.path

    def checkpoint(
        self,
        claim: Claim,
        progress: Progress,
        *,
        durable: Checkpoint | None = None,
        quiet: bool = False,
        hangs: tuple[str, float] | None = None,
    ) -> Orders:
        """Renew the lease, report progress and durable ranges; return the orders.

        ``quiet``: no data is being written, so a requested pause takes effect with this call.  ``hangs``: the path of a
        call of the attempt that does not return, and the seconds since the call.

        Raises:
            LeaseLost: the attempt does not hold the job any more.
        """
        job_id = claim.spec.id
        names = [keys.job(self.host, job_id), keys.holds(self.host, job_id), keys.host_events(self.host)]
        args = [
            job_id,
            claim.token,
            claim.attempt,
            progress.offset,
            progress.len,
            codec.pack_value(dict(progress.counts or {})),
            pack_checkpoint(durable) if durable else "",
            int(quiet),
            *(hangs_of(hangs)),
        ]
        match self._scripts.call("checkpoint", names, args):
            case [b"ok", cancelled, paused, speed, _, complete, park]:
                return Orders(
                    cancel=cancelled == b"force",
                    soft=cancelled == b"soft",
                    pause=paused == 1,
                    complete=complete == b"1",
                    park=park == 1,
                    speed=int(speed),
                )
            case [b"lost"] | [b"missing"]:
                raise errors.LeaseLost(job_id)
            case reply:
                raise AssertionError(f"checkpoint answered {reply!r}: the scripts are of another version")

    def error(
        self, claim: Claim, number: int, *, operation: str, action: str, io_status: str, text: str, errno: int = EIO
    ) -> None:
        """Record an I/O error, the ``number``-th of the attempt; repeating the last error is harmless.

        Raises LeaseLost.
        """
        job_id = claim.spec.id
        names = [keys.job(self.host, job_id), keys.holds(self.host, job_id), keys.host_events(self.host)]
        args = [job_id, claim.token, claim.attempt, operation, action, io_status, text, errno, number]
        if self._scripts.call("error", names, args)[0] != b"ok":
            raise errors.LeaseLost(job_id)

    def ready(self, claim: Claim, progress: Progress) -> None:
        """Record that the target has caught up with the source; a repeated call is harmless.  Raises LeaseLost."""
        names = [keys.job(self.host, claim.spec.id), keys.host_events(self.host)]
        args = [claim.spec.id, claim.token, claim.attempt, progress.offset, progress.len]
        if self._scripts.call("ready", names, args)[0] not in (b"ready", b"repeated"):
            raise errors.LeaseLost(claim.spec.id)

    def diverging(self, claim: Claim, *, passes: int, dirty_rate: int, copy_rate: int) -> None:
        """Record that a mirror does not converge (``passes`` 0: converges again).  Raises LeaseLost."""
        names = [keys.job(self.host, claim.spec.id), keys.host_events(self.host)]
        args = [claim.spec.id, claim.token, claim.attempt, passes, dirty_rate, copy_rate]
        if self._scripts.call("diverge", names, args)[0] != b"ok":
            raise errors.LeaseLost(claim.spec.id)

    def stalled(self, claim: Claim, seconds: float) -> None:
        """Record that a copy makes no progress.  Raises LeaseLost."""
        names = [keys.job(self.host, claim.spec.id), keys.host_events(self.host)]
        args = [claim.spec.id, claim.token, claim.attempt, int(seconds)]
        if self._scripts.call("stall", names, args)[0] != b"ok":
            raise errors.LeaseLost(claim.spec.id)

    def finish(
        self,
        claim: Claim,
        progress: Progress,
        *,
        durable: Checkpoint | None,
        result: Mapping[str, Any],
        errno: int = 0,
        text: str = "",
    ) -> None:
        """End the attempt and the job; a repeated call is harmless.  Raises LeaseLost."""
        job_id, txn = claim.spec.id, claim.spec.transaction
        names = self._finish_keys(job_id, txn)
        args = [
            job_id, claim.token, claim.attempt, txn, -errno, text, progress.offset, progress.len,
            codec.pack_value(dict(progress.counts or {})), pack_checkpoint(durable) if durable else "",
            codec.pack_value(dict(result)),
        ]  # fmt: skip
        if self._scripts.call("finish", names, args)[0] not in (b"finished", b"repeated"):
            raise errors.LeaseLost(job_id)

    def release(self, job_id: JobId, txn: TxnId, token: int, attempt: str, *, why: str) -> bool:
        """End the attempt without the job (parked, drained, dead, fenced); False: the attempt did not hold the job."""
        names = [
            keys.job(self.host, job_id), keys.holds(self.host, job_id), keys.tally(self.host, txn),
            keys.host_events(self.host), keys.attempts(self.host), keys.ready(self.host), keys.fences(self.host),
            keys.host_due(self.host), keys.host_due_wake(self.host),
        ]  # fmt: skip
        reply = self._scripts.call("release", names, [job_id, token, attempt, txn, why, POISON])
        return bool(reply[0] == b"released")

    def tell_death(self, job_id: JobId, attempt: str, how: str, where: str) -> bool:
        """Record how the process of an attempt died, and the place of the log; False: the job is gone."""
        names = [keys.job(self.host, job_id), keys.host_events(self.host)]
        return bool(self._scripts.call("died", names, [job_id, attempt, how, where])[0] == b"told")

    def live(self) -> list[LocalClaim]:
        """The claims on this host, not decoded yet, so that one malformed record does not hide the other claims."""
        found = [(JobId(job.decode()), who) for job, who in self._redis.hgetall(keys.attempts(self.host)).items()]
        if not found:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for job, _ in found:
            pipe.hmget(keys.job(self.host, job), "txn", "token", "attempt", "cancel-at", "hangs")
        pipe.hgetall(keys.fences(self.host))
        *rows, fences = pipe.execute(raise_on_error=False)
        if isinstance(fences, redis.RedisError):
            raise fences
        ordered = frozenset(fences)
        return [LocalClaim(job, who, row, ordered) for (job, who), row in zip(found, rows, strict=True)]

    def wait(self, job_id: JobId, seconds: float) -> bool:
        """Block until a knock for this job, at most ``seconds``."""
        return self._waiting.blpop([keys.wake(self.host, job_id)], timeout=seconds) is not None

    def knock(self, job_id: JobId) -> None:
        """Wake the job's control line; without a waiting control line, no trace of the knock remains."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.lpush(keys.wake(self.host, job_id), b"1")
            pipe.ltrim(keys.wake(self.host, job_id), 0, 0)
            pipe.expire(keys.wake(self.host, job_id), KNOCK)
            pipe.execute()


@dataclass(frozen=True, slots=True)
class AttemptStanding:
    """A local claim for the watcher: cancelled or not, ordered to end or not, and a hanging path."""

    job: JobId
    txn: TxnId
    token: int
    attempt: str
    cancelled: bool
    fenced: bool
    hangs: tuple[int, str] | None = None  # since when, in milliseconds of Redis' clock, and the path


@dataclass(frozen=True, slots=True)
class LocalClaim:
    """A claim on this host as read: records of the process and of the job."""

    job: JobId
    _who: bytes
    _row: list[bytes | None] | redis.RedisError
    _ordered: frozenset[bytes]  # the attempts ordered to end

    def who(self) -> Who:
        """The process of the claim.  Raises ValueError or TypeError for a record of another version."""
        attempt, pid, started, boot = codec.unpack_value(self._who)
        if not (isinstance(attempt, str) and type(pid) is int and isinstance(started, float) and isinstance(boot, str)):
            raise ValueError(f"the record of the claim's process has fields of other kinds: {attempt!r}, {pid!r}")
        return Who(attempt, pid, started, boot)

    def standing(self) -> AttemptStanding:
        """The job's state.  Raises ValueError for a field of another version, and redis.RedisError."""
        if isinstance(self._row, redis.RedisError):
            raise self._row
        txn, token, attempt, cancelled, hangs = (value or b"" for value in self._row)
        return AttemptStanding(
            self.job,
            TxnId(txn.decode()),
            int(token or 0),
            attempt.decode(),
            bool(cancelled),
            attempt in self._ordered,
            _hanging_since(hangs),
        )


def _hanging_since(hangs: bytes) -> tuple[int, str] | None:
    since, _, path = hangs.decode().partition(" ")
    return (int(since), path) if hangs else None


def unreadable_record_text(job: JobId, error: Exception) -> str:
    """The reason why a job with an unreadable record cannot proceed."""
    return f"job '{job}': its record is of a newer version of blockjobs, or damaged ({type(error).__name__}: {error})"


def _claim_of(attempt: str, answer: Sequence[bytes]) -> Claim:
    """A claim from the answer of the script.  A malformed record raises any kind of exception."""
    token, spec, opened, durable, speed, number, offset, counts, cut = answer
    return Claim(
        int(token),
        attempt,
        JobSpec.from_dict(codec.unpack_value(spec)),
        opened_and_cut(opened, cut),
        unpack_checkpoint(durable),
        int(speed),
        int(number),
        int(offset),
        codec.unpack_value(counts) if counts else {},
    )


def hangs_of(hangs: tuple[str, float] | None) -> tuple[str, int]:
    """The hanging path in the script's form: the path, and milliseconds."""
    return ("", 0) if hangs is None else (hangs[0], round(1000 * hangs[1]))


def opened_and_cut(opened: bytes | None, cut: bytes | None) -> dict[str, Any]:
    """The findings of OPEN, with the result of CUT under "cut"."""
    found: dict[str, Any] = codec.unpack_value(opened) if opened else {}
    return found | {"cut": codec.unpack_value(cut)} if cut else found


def pack_checkpoint(point: Checkpoint) -> bytes:
    """A checkpoint as bytes; without salvaged ranges in the form of earlier releases."""
    keys: list[Any] = [point.staging, [list(pair) for pair in point.ranges]]
    if lost := point.salvaged:
        keys.append([[list(pair) for pair in lost.ranges], lost.more, lost.bytes])
    return codec.pack_value(keys)


def unpack_checkpoint(data: bytes) -> Checkpoint:
    if not data:
        return Checkpoint()
    staging, ranges, *rest = codec.unpack_value(data)
    lost, more, length = rest[0] if rest else ((), 0, 0)
    return Checkpoint(staging, _range_pairs(ranges), Salvaged(_range_pairs(lost), more, length))


def _range_pairs(ranges: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in ranges)
