"""The steps answered by a host for its members: open, cut, prepare, settle.

A step may come twice, late, or after a crash half-way: finished work is found finished, and answered again.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import redis

from blockjobs.model.barriers import Decision, Step
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import BadInput, BlockjobsError, JobFailed, unexpected_error_text
from blockjobs.model.ids import JobId, TxnId
from blockjobs.model.jobs import JobSpec, RoomCheck
from blockjobs.model.room import backup_series, estimate_room
from blockjobs.registry.answers import Answer, Answers, Member, UnreadableMember, warning_lines
from blockworker import drivers
from blockworker.attempt.error_policy import Action, action_on_error
from blockworker.drivers.base import Driver, Opened
from blockworker.drivers.staged import is_staged
from blockworker.host.roots import Roots
from blockworker.records.batch import Batch
from blockworker.records.folder import LockBusy
from blockworker.records.highest_decision import Highest
from blockworker.steps.cut import cut_members
from blockworker.system.together import Durably, do_together
from blockworker.targets.given import Prepared
from blockworker.targets.opening import target_path
from blockworker.targets.resolve import resolution_of
from blockworker.targets.room import Room
from blockworker.targets.staged import StagingBusy

log = logging.getLogger(__name__)

OFTEN = 5.0  # seconds for beginning the members of a batch: then they are finished and answered
BATCH = 100  # members of a batch at most: a large share shows progress, and holds locks and Redis only shortly

T = TypeVar("T")
Ends: TypeAlias = Sequence[tuple[Member, T | Exception]]  # members, with the result of a step or its error


class Steps:
    """The steps of one host."""

    def __init__(self, answers: Answers, roots: Roots, highest: Highest | None = None) -> None:
        self._answers, self._roots = answers, roots
        self._highest = highest or Highest(roots.config)

    def take(self, step: str, txn: TxnId, jobs: Sequence[JobId] | None = None) -> None:
        """Do a step for every member that owes the step on this host, and answer. ``jobs``: only for these members."""
        every = self._answers.every_member(txn, jobs)
        owing = [each for each in every if _owes_step(each, Step(step))]
        log.info("transaction %s: %s of %d members, of which %d owe it", txn, step, len(every), len(owing))
        self._answer_unreadable(txn, Step(step), [each for each in owing if isinstance(each, UnreadableMember)])
        by_name: dict[Step, Callable[[TxnId, Sequence[Member]], None]] = {
            Step.OPEN: self._open,
            Step.PREPARE: self._prepare,
            Step.SETTLE: self._settle,
        }
        try:
            if step == Step.CUT:  # all members at once
                cut_members(self._answers, self._roots, txn, self._driver)
            else:
                by_name[Step(step)](txn, [each for each in owing if isinstance(each, Member)])
            if step == Step.SETTLE:
                self._clean([each for each in every if isinstance(each, Member)])
        except (LockBusy, StagingBusy) as busy:
            log.warning("transaction %s: %s: %s; it is rung for again", txn, step, busy)

    def _answer_unreadable(self, txn: TxnId, step: Step, owing: Sequence[UnreadableMember]) -> None:
        """Answer as failed for members whose record this version cannot read.

        A failed settle is owed until a version that can read the record does the settle.
        """
        if step == Step.SETTLE and not self._answers.decision(txn)[0]:
            return
        for each in owing:
            log.error("transaction %s: %s: %s", txn, step, each.text)
        self._answers.answer(txn, step, [Answer(each.job, errno.EINVAL, each.text) for each in owing])

    def _open(self, txn: TxnId, owing: Sequence[Member]) -> None:
        room = Room(self._roots, self._answers.needs(txn))

        def begin(batch: Batch, member: Member) -> Durably[Opened]:
            wanted = partial(self._answers.owed, member.spec.id)
            return (yield from self._driver(member).opening(batch, member.spec, wanted))

        def answer(member: Member, opened: Opened) -> Answer:
            spec = member.spec
            need, warnings = None, [*opened.warnings, *opened.notes, *opened.damage]
            if opened.writes and not spec.in_place:  # a device has its room
                need, more = _room_for(room, spec, last.get(spec.id, 0), opened.allocated)
                warnings += more
            return Answer(
                spec.id,
                result=opened.to_dict() | ({} if need is None else {"need": list(need)}),
                reads=opened.reads,
                writes=opened.writes,
                size=opened.size,
                text=warning_lines(warnings),
                uncut=None if opened.cut else Cut(why=opened.uncut).to_dict(),
            )

        roots = self._roots.serving(self._answers.decision(txn)[2])
        last: dict[JobId, int] = {}  # sizes of last backups, in bytes, for the batch being answered
        for batch in self._batches(roots, owing, begin):
            last = dict(self._answers.last_sizes(member.spec for member, _ in batch))
            self._answer(txn, Step.OPEN, batch, answer)

    def _prepare(self, txn: TxnId, owing: Sequence[Member]) -> None:
        skew = self._answers.skew(txn)

        def begin(batch: Batch, member: Member) -> Durably[Prepared | None]:
            opened = _with_skew(member.opened, skew)
            driver = self._driver(member)
            return (yield from driver.preparing(batch, member.spec, member.durable, opened, member.result))

        def answer(member: Member, prepared: Prepared | None) -> Answer:
            prepared = prepared or Prepared()
            made = {"series": name, "bytes": prepared.allocated} if (name := backup_series(member.spec)) else {}
            result = made if prepared.allocated else {}
            return Answer(member.spec.id, result=result, text=warning_lines(prepared.warnings))

        for batch in self._batches(self._roots, owing, begin):
            self._answer(txn, Step.PREPARE, batch, answer)

    def _settle(self, txn: TxnId, owing: Sequence[Member]) -> None:
        decision, number, incarnation = self._answers.decision(txn)  # from the registry, never from a message
        if not decision:
            log.warning("transaction %s: asked to settle, but nothing is decided", txn)
            return
        roots = self._roots.with_former()

        def begin(batch: Batch, member: Member) -> Durably[str]:
            batch.once("highest", lambda: self._highest.raise_to(incarnation, number))
            if decision == Decision.COMMIT:
                yield from self._driver(member).committing(batch, member.spec, number)
                return ""
            return self._abort(roots, member, number)

        def answer(member: Member, left: str) -> Answer:
            asked = decision == Decision.COMMIT and member.unsettled and is_staged(member.spec)
            return Answer(member.spec.id, text=left, result=resolution_of(roots, member.spec) if asked else {})

        for batch in self._batches(roots, owing, begin):
            self._answer(txn, Step.SETTLE, batch, answer)

    def _batches(
        self, roots: Roots, members: Sequence[Member], begin: Callable[[Batch, Member], Durably[T]]
    ) -> Iterator[Ends[T]]:
        """Do a step for every member, a batch at a time; yield the members of a batch with the results.

        A batch ends early if the members take long: a busy host must not look like a hanging host.
        """
        done = 0
        while done < len(members):
            some = members[done : done + BATCH]
            try:
                owed = partial(self._answers.owed_of, [member.spec.id for member in some])
                with Batch(roots, owed) as batch:
                    ends = do_together((begin(batch, member) for member in some), OFTEN)
            except redis.RedisError:
                raise
            except Exception as error:  # the journal could not be left in its required state
                ends = [error for _ in some]
            yield [*zip(some, ends, strict=False)]
            done += len(ends)

    def _answer(self, txn: TxnId, step: Step, batch: Ends[T], answer: Callable[[Member, T], Answer]) -> None:
        """Answer for a batch. Raises LockBusy, StagingBusy: a member has no answer yet."""
        answers: list[Answer] = []
        busy: BlockjobsError | None = None
        for member, end in batch:
            try:
                with _errors_as_answers(answers, member):
                    if isinstance(end, Exception):
                        raise end
                    answers.append(answer(member, end))
            except (LockBusy, StagingBusy) as error:
                busy = error
        self._answers.answer(txn, step, answers)
        if busy is not None:
            raise busy

    def _clean(self, members: Sequence[Member]) -> None:
        """Close the journals, once per root: the driver of one member does so for every member of the root."""
        seen = set()
        roots = self._roots.with_former()
        for member in members:
            if (place := (member.spec.type, _root_of(roots, member.spec))) not in seen:
                seen.add(place)
                with _errors_as_warnings(member):
                    self._driver(member).clean(roots, member.spec)

    def _abort(self, roots: Roots, member: Member, number: int) -> str:
        opened = bool(member.opened)
        try:
            return self._driver(member).abort(roots, member.spec, number, opened=opened) or ""
        except drivers.NoDriver:
            if opened:
                raise  # a former driver is gone, but its files exist
            return ""

    def _driver(self, member: Member) -> Driver:
        return drivers.find_driver(member.spec.type, self._roots.config.name)


OWES: Mapping[Step, tuple[str, str]] = {  # step -> the last step passed, and the status, of a member that owes the step
    Step.OPEN: ("", "created"),
    Step.CUT: (Step.OPEN, "created"),
    Step.PREPARE: (Step.RUN, "pending"),
}


def _owes_step(member: Member | UnreadableMember, step: Step) -> bool:
    if step == Step.SETTLE:  # a live attempt unwinds first, and its end rings for this step again
        return member.passed != Step.SETTLE and not member.claimed
    return (member.passed, member.status) == OWES[step]


def _with_skew(opened: Mapping[str, Any], skew: float | None) -> Mapping[str, Any]:
    """The findings of OPEN and CUT, with the skew between the cuts of the whole transaction."""
    if skew is None or "cut" not in opened:
        return opened
    return {**opened, "cut": {**opened["cut"], "skew": skew}}


def _room_for(room: Room, spec: JobSpec, last: int, allocated: int | None) -> tuple[tuple[int, int] | None, list[str]]:
    """Check whether a target fits; return its file system and the needed bytes, if known, and warnings.

    ``last``: bytes used by the last backup of the job; 0: none exists. Raises JobFailed: the target does not fit.
    """
    needed = estimate_room(spec, last=last, allocated=allocated)
    if needed is None:
        return None, [f"nobody can tell how much room {spec.target.text} needs: no backup of its kind was made before"]
    system, warnings = _take_room(room, spec, needed.bytes)
    return (system, needed.bytes), [f"{text} (estimated by the {needed.origin})" for text in warnings]


def _take_room(room: Room, spec: JobSpec, needed: int) -> tuple[int, list[str]]:
    """Refuse a target too large for its file system, unless the job goes on all the same, or will wait for room.

    Returns the number of the target's file system, and warnings.
    """
    system, wrong = room.add(os.path.dirname(target_path(spec)), needed)
    if not wrong:
        return system, []
    if action_on_error(spec.on_target_error, errno.ENOSPC)[0] is Action.STOP:
        log.warning("job %s: %s; it will stop and wait for room", spec.id, wrong)
        return system, [f"{wrong}; the job will stop and wait for room"]
    if spec.room is RoomCheck.WARN:
        return system, [wrong]
    raise JobFailed(errno.ENOSPC, f"{wrong}; with 'room: warn' the job goes on all the same")


def _root_of(roots: Roots, spec: JobSpec) -> str:
    """The write root of a target; its directory if the target lies beneath no write root."""
    try:
        return roots.root_of(target_path(spec), write=True).path
    except JobFailed:
        return spec.target.text.rpartition("/")[0]


@contextmanager
def _errors_as_answers(answers: list[Answer], member: Member) -> Iterator[None]:
    """Turn errors into the member's answer."""
    try:
        yield
    except (LockBusy, StagingBusy, redis.RedisError):
        raise
    except JobFailed as failed:
        log.warning("job %s: %s", member.spec.id, failed.text)
        answers.append(Answer(member.spec.id, failed.errno, failed.text))
    except BadInput as wrong:
        answers.append(Answer(member.spec.id, errno.EINVAL, str(wrong)))
    except OSError as error:
        log.exception("job %s: an error nobody expected", member.spec.id)
        code = error.errno or errno.EIO
        answers.append(
            Answer(member.spec.id, code, f"{error.filename or member.spec.target.text}: {os.strerror(code)}")
        )
    except Exception as error:  # the error of this member alone; other members have answers
        log.exception("job %s: an error nobody expected", member.spec.id)
        answers.append(Answer(member.spec.id, errno.EIO, unexpected_error_text(error)))


@contextmanager
def _errors_as_warnings(member: Member) -> Iterator[None]:
    try:
        yield
    except redis.RedisError:
        raise
    except Exception as error:  # the member stays settled; the next sweep closes the journal
        log.warning("transaction %s: its journal is not closed yet: %s", member.spec.transaction, error)
