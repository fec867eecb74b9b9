"""CUT on a host: cut all members as nearly at one instant as possible, while the sources stand still."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final, Self, TypeVar

import redis

from blockjobs.model import volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import BadInput, JobFailed, unexpected_error_text
from blockjobs.model.ids import JobId, TxnId
from blockjobs.model.volumespec import HostedVolume
from blockjobs.process.clock import seconds_since_boot
from blockjobs.registry.answers import Answer, Answers, Member
from blockjobs.registry.submit import split_batches
from blockworker.cuts import cut_files
from blockworker.cuts.quiesce import Quiesce
from blockworker.drivers.base import Driver
from blockworker.drivers.staged import is_null
from blockworker.host.roots import Root, Roots
from blockworker.records import journal as journals
from blockworker.records.folder import LockBusy
from blockworker.system import crew
from blockworker.system.crew import Crew
from blockworker.system.standstill import path_calls

LIMIT: Final = 75.0  # seconds for the whole step: a command has 60 for a cut, and the barrier waits for 120
GONE: Final = 5.0  # seconds for a released lock to be gone
MARGIN: Final = 0.5  # seconds before the end of a freeze; at this time members without a cut are given up
BATCH: Final = 100  # members answered at once

T = TypeVar("T")
log = logging.getLogger(__name__)

Find = Callable[[Member], Driver]  # raises JobFailed


def cut_members(answers: Answers, roots: Roots, txn: TxnId, find: Find, *, limit: float = LIMIT) -> None:
    """Cut every member on this host that owes the step, and answer.

    The journals' locks are held from before the first cut until after the answer: meanwhile no process settles a
    member, or repeats a cut already answered, and perhaps read. A member on a hanging file system is answered as failed
    when the limit, in seconds, is over; then a thread stays behind (``crew.left_behind``).

    Raises:
        LockBusy: another process works on the transaction.
    """
    until = time.monotonic() + limit
    owing = _members_owing_cut(answers.members(txn))
    with _Keepers(roots, txn, owing) as keepers:
        hung, lost = keepers.wait(_journal_roots(roots, owing), until)
        owing = _members_owing_cut(answers.members(txn))  # read again, now that the locks keep the members unchanged
        if owing:
            share = HostCut(answers, roots, owing, find, until)
            for member in owing:
                if is_null(member.spec):
                    continue
                if (root := _target_root(roots, member)) in hung:
                    share.fail(member.spec.id, _hanging_failure(roots, member, hung[root] or root.path))
                elif root in lost:
                    share.fail(member.spec.id, lost[root])
            for batch in split_batches(share.cut(), BATCH):
                answers.answer(txn, Step.CUT, batch)


class _Keepers:
    """Holds the locks of a transaction's journals, a thread per lock, until the context ends."""

    def __init__(self, roots: Roots, txn: TxnId, members: Sequence[Member]) -> None:
        self._roots, self._txn, self._jobs = roots, txn, {member.spec.id for member in members}
        self._members = [member for member in members if not is_null(member.spec)]
        self._over = threading.Event()
        self._news = threading.Condition()
        self._held: dict[Root, JobFailed | LockBusy | None] = {}
        self._threads: dict[Root, threading.Thread] = {}

    def wait(self, wanted: Sequence[Root], until: float) -> tuple[dict[Root, str], dict[Root, JobFailed]]:
        """Take the locks; return the hanging roots, and the roots with lost journals.

        The value of a hanging root is the hanging path; "" if not known.

        Raises:
            LockBusy: another process has a lock.
        """
        for root in wanted:
            self._threads[root] = threading.Thread(target=self._keep, args=(root,), name=crew.NAME, daemon=True)
            self._threads[root].start()
        with self._news:
            self._news.wait_for(lambda: len(self._held) == len(wanted), timeout=max(0.0, until - time.monotonic()))
            held = dict(self._held)
        for failed in held.values():
            if isinstance(failed, LockBusy):
                raise failed
        paths = {call.tid: call.path for call in path_calls(os.getpid())} if len(held) < len(wanted) else {}
        hung = {root: paths.get(self._threads[root].native_id or 0, "") for root in wanted if root not in held}
        return hung, {root: failed for root, failed in held.items() if isinstance(failed, JobFailed)}

    def _keep(self, root: Root) -> None:
        try:
            with ExitStack() as locks:
                for place in self._places(root):
                    journal = locks.enter_context(journals.locked_open_journal(self._roots, place, self._txn))
                    if journal is not None:
                        cut_files.record_begun_cuts(journal, self._jobs)
                self._note(root, None)
                self._over.wait()
        except (JobFailed, LockBusy) as failed:
            self._note(root, failed)
        except OSError as error:
            code = error.errno or errno.EIO
            self._note(root, JobFailed(code, f"the journal beneath {root.path}: {os.strerror(code)}"))
        except Exception as error:
            log.exception("transaction %s: an error nobody expected", self._txn)
            self._note(root, JobFailed(errno.EIO, unexpected_error_text(error)))

    def _places(self, root: Root) -> list[Root]:
        """The roots where OPEN put the journals of this root's members: mostly here, even if the roots have changed."""
        mine = [member.spec for member in self._members if _target_root(self._roots, member) == root]
        found = {
            journals.journal_root(self._roots, volumespec.volume_label(spec.target.volume), self._txn, spec.id)
            for spec in mine
        }
        return sorted(found, key=lambda place: place.path)

    def _note(self, root: Root, failed: JobFailed | LockBusy | None) -> None:
        with self._news:
            self._held.setdefault(root, failed)
            self._news.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for root, thread in self._threads.items():
            if root in self._held:
                thread.join(GONE)


def _members_owing_cut(members: Iterable[Member]) -> list[Member]:
    return [member for member in members if member.passed == Step.OPEN and member.status == "created"]


def _journal_roots(roots: Roots, members: Iterable[Member]) -> list[Root]:
    """The roots with the journals of the members, in the order of locking of every process."""
    return sorted(
        {_target_root(roots, member) for member in members if not is_null(member.spec)}, key=lambda root: root.path
    )


def _target_root(roots: Roots, member: Member) -> Root:
    return roots.root_of(volumespec.volume_label(member.spec.target.volume), write=True)


def _hanging_failure(roots: Roots, member: Member, path: str) -> JobFailed:
    text = f"source {member.spec.source.text} was not cut in time: {path} on host {roots.config.name} hangs"
    return JobFailed(errno.ETIMEDOUT, text)


@dataclass(frozen=True, slots=True)
class Made:
    """A cut, and when it was made by this machine's clock."""

    cut: Cut
    begin: float
    end: float


class HostCut:
    """The members of one host, cut once."""

    def __init__(self, answers: Answers, roots: Roots, members: Sequence[Member], find: Find, until: float) -> None:
        self._answers, self._roots, self._members, self._find, self._until = answers, roots, members, find, until
        self._failed: dict[JobId, JobFailed] = {}
        self._quiet: dict[str, list[Member]] = {}  # by quiesce command
        for member in members:
            if name := _quiesce_command(member):
                self._quiet.setdefault(name, []).append(member)

    def fail(self, job: JobId, failed: JobFailed) -> None:
        """Fail a member and do nothing more for the member; only the first reason is reported."""
        self._failed.setdefault(job, failed)

    def cut(self) -> list[Answer]:
        self._end(self._begin(self._brace))
        clocks = [self._clock()]
        freezes = {name: self._command(name) for name in self._quiet if self._quiet[name]}
        try:
            for name, failed in _side_by_side(_freeze_sources, freezes).items():
                if failed:
                    self._fail(name, failed)
            making = self._begin(self._make)
            # Frozen sources go on before slow members are cut, and before the freeze reaches its limit.
            still = {member.spec.id for members in self._quiet.values() for member in members} & making.keys
            freed = time.monotonic() + self._roots.config.thaw_after - MARGIN
            late = still - making.wait(still, min(freed, self._until)).keys()
        finally:
            stood = _side_by_side(Quiesce.thaw, freezes)
        for name, seconds in stood.items():
            for job in {member.spec.id for member in self._quiet[name]}:
                if seconds is None or job in late:
                    text = f"command '{name}': the source did not stand still until it was cut"
                    self.fail(job, JobFailed(errno.ETIMEDOUT, text))
        made = self._end(making)
        clocks.append(self._clock())
        told = {job: _cut_by_redis_clock(each, clocks) for job, each in made.items()}
        for name, seconds in stood.items():
            for job in {member.spec.id for member in self._quiet[name]} & told.keys():
                told[job] = replace(told[job], frozen=seconds or 0.0)
        keeping = self._begin(lambda member: self._find(member).keep(self._roots, member.spec, told[member.spec.id]))
        self._end(keeping)
        return [self._answer(member.spec.id, told) for member in self._members]

    def _begin(self, act: Callable[[Member], T]) -> Crew[JobId, Member, T | JobFailed]:
        """Begin to call ``act`` for every member without a failure."""

        def one(member: Member) -> T | JobFailed:
            try:
                return act(member)
            except JobFailed as failed:
                return failed
            except (BadInput, OSError) as error:
                code = getattr(error, "errno", None) or errno.EINVAL
                return JobFailed(code, f"{member.spec.source.text}: {error}")
            except redis.RedisError:
                raise
            except Exception as error:  # the error of this member alone
                log.exception("job %s: an error nobody expected", member.spec.id)
                return JobFailed(errno.EIO, unexpected_error_text(error))

        members = {member.spec.id: member for member in self._members if member.spec.id not in self._failed}
        places = {
            job: (_volume_folder(member.spec.source), _volume_folder(member.spec.target))
            for job, member in members.items()
        }
        return Crew(one, members, places)

    def _end(self, work: Crew[JobId, Member, T | JobFailed]) -> dict[JobId, T]:
        """Results of the members without a failure; members still hanging at the end of the time are given up."""
        results = work.wait(work.keys, self._until)
        for job, path in work.give_up().items():
            member = next(member for member in self._members if member.spec.id == job)
            self.fail(
                job, _hanging_failure(self._roots, member, path or volumespec.volume_label(member.spec.source.volume))
            )
        done: dict[JobId, T] = {}
        for job, result in results.items():
            if isinstance(result, JobFailed):
                self.fail(job, result)
            elif job not in self._failed:
                done[job] = result
        return done

    def _fail(self, name: str, failed: JobFailed) -> None:
        """Fail every member whose source the command should have quiesced."""
        for member in self._quiet[name]:
            self.fail(member.spec.id, failed)

    def _brace(self, member: Member) -> None:
        self._find(member).brace(self._roots, member.spec)

    def _make(self, member: Member) -> Made:
        driver, begin = self._find(member), seconds_since_boot()
        made = driver.cut(self._roots, member.spec, member.opened)
        return Made(made, begin, seconds_since_boot())

    def _command(self, name: str) -> Quiesce:
        """One call of a quiesce command for every source of the command."""
        config = self._roots.config
        paths = dict.fromkeys(volumespec.volume_label(member.spec.source.volume) for member in self._quiet[name])
        return Quiesce(name, config.commands.get(name, ()), [*paths], limit=config.thaw_after)

    def _clock(self) -> tuple[float, float]:
        """Lead of Redis' clock over ours, at least and at most: the clock was read at some time within the call."""
        asked, now, heard = seconds_since_boot(), self._answers.now(), seconds_since_boot()
        return now - heard, now - asked

    def _answer(self, job: JobId, told: Mapping[JobId, Cut]) -> Answer:
        if failed := self._failed.get(job):
            log.warning("job %s: %s", job, failed.text)
            return Answer(job, failed.errno, failed.text)
        return Answer(job, result=told[job].to_dict())


def _quiesce_command(member: Member) -> str:
    return str(member.spec.options.get("quiesce") or "")


def _volume_folder(volume: HostedVolume) -> str:
    return os.path.dirname(volumespec.volume_label(volume.volume))


def _side_by_side(act: Callable[[Quiesce], T], freezes: Mapping[str, Quiesce]) -> dict[str, T]:
    """Call ``act`` for every command at the same time; a command ends by itself, even if others hang."""
    with ThreadPoolExecutor(max(1, len(freezes)), "quiesce") as pool:
        return dict(zip(freezes, pool.map(act, freezes.values()), strict=True))


def _freeze_sources(freeze: Quiesce) -> JobFailed | None:
    """Freeze the sources; return the failure, or None."""
    try:
        if freeze.freeze():
            return None
        return JobFailed(errno.EPERM, "its quiesce command is not allowed by host.toml any more")
    except JobFailed as failed:
        return failed


def _cut_by_redis_clock(made: Made, clocks: Sequence[tuple[float, float]]) -> Cut:
    """The cut with its times by Redis' clock: surely not before ``begin``, and surely not after ``end``."""
    least, most = min(ahead for ahead, _ in clocks), max(ahead for _, ahead in clocks)
    return replace(made.cut, begin=made.begin + least, end=made.end + most)
