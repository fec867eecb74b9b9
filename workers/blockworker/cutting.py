"""CUT on a host: all members of its share at one instant, as near as can be, while their sources stand still."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from blockjobs.daemons.loop import boottime
from blockjobs.model import volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.ids import JobId, TxnId
from blockjobs.store.answers import Answer, Answers, Member
from blockjobs.store.submit import batches
from blockworker.drivers.base import Driver
from blockworker.drivers.staged import is_null
from blockworker.quiesce import Quiesce
from blockworker.roots import Root, Roots
from blockworker.targets import cuts
from blockworker.targets import journal as journals

LANES: Final = 8  # cuts at once: those that a command makes take their time
BATCH: Final = 100  # members answered at once

T = TypeVar("T")
log = logging.getLogger(__name__)

Find = Callable[[Member], Driver]  # raises JobFailed


def cut(answers: Answers, roots: Roots, txn: TxnId, find: Find) -> None:
    """Cut every member here that owes it, and answer.

    From before the first cut to behind the answer this holds the journals' locks: nobody settles a member meanwhile,
    and nobody makes a cut anew that is answered for, and perhaps read.

    Raises:
        LockBusy: somebody else is at work on the transaction.
    """
    with ExitStack() as held:
        locked = [
            held.enter_context(journals.locked(roots, root, txn))
            for root in _roots(roots, _owing(answers.members(txn)))
        ]
        owing = _owing(answers.members(txn))  # again, now that they stay so
        for journal in locked:
            if journal is not None:
                cuts.begin(journal, {member.spec.id for member in owing})
        if owing:
            for batch in batches(Share(answers, roots, owing, find).cut(), BATCH):
                answers.answer(txn, Step.CUT, batch)


def _owing(members: Iterable[Member]) -> list[Member]:
    return [member for member in members if member.passed == Step.OPEN and member.status == "created"]


def _roots(roots: Roots, members: Iterable[Member]) -> list[Root]:
    """Those with the journals of the members, in the order in which everybody takes their locks."""
    targets = (volumespec.label(member.spec.target.volume) for member in members if not is_null(member.spec))
    return sorted({roots.root_of(target, write=True) for target in targets}, key=lambda root: root.path)


@dataclass(frozen=True, slots=True)
class Made:
    """A cut, and when it was made by this machine's clock."""

    cut: Cut
    begin: float
    end: float


class Share:
    """A host's share, to be cut once."""

    def __init__(self, answers: Answers, roots: Roots, members: Sequence[Member], find: Find) -> None:
        self._answers, self._roots, self._members, self._find = answers, roots, members, find
        self._failed: dict[JobId, JobFailed] = {}
        self._quiet: dict[str, list[Member]] = {}  # by the command that quiesces their sources
        for member in members:
            if name := _quiesce(member):
                self._quiet.setdefault(name, []).append(member)

    def cut(self) -> list[Answer]:
        with ThreadPoolExecutor(LANES, "cut") as self._lanes:
            self._each(self._brace)
            clocks = [self._clock()]
            freezes = {name: self._command(name) for name in self._quiet if self._quiet[name]}
            try:
                for name, failed in zip(freezes, self._lanes.map(_frozen, freezes.values()), strict=True):
                    if failed:
                        self._fail(name, failed)
                made = self._each(self._make)
            finally:
                stood = dict(zip(freezes, self._lanes.map(Quiesce.thaw, freezes.values()), strict=True))
            clocks.append(self._clock())
            for name, seconds in stood.items():
                if seconds is None:
                    text = f"command '{name}': the source did not stand still until it was cut"
                    self._fail(name, JobFailed(errno.ETIMEDOUT, text))
            told = {job: _told(each, clocks) for job, each in made.items()}
            for name, seconds in stood.items():
                for job in {member.spec.id for member in self._quiet[name]} & told.keys():
                    told[job] = replace(told[job], frozen=seconds or 0.0)
            self._each(lambda member: self._find(member).keep(self._roots, member.spec, told[member.spec.id]))
        return [self._answer(member.spec.id, told) for member in self._members]

    def _each(self, act: Callable[[Member], T]) -> dict[JobId, T]:
        """What ``act`` makes of every member that has not failed yet, and does not fail in it."""

        def one(member: Member) -> T | JobFailed:
            try:
                return act(member)
            except JobFailed as failed:
                return failed
            except (BadInput, OSError) as error:
                code = getattr(error, "errno", None) or errno.EINVAL
                return JobFailed(code, f"{member.spec.source.text}: {error}")

        asked = [member for member in self._members if member.spec.id not in self._failed]
        done: dict[JobId, T] = {}
        for member, result in zip(asked, self._lanes.map(one, asked), strict=True):
            if isinstance(result, JobFailed):
                self._failed[member.spec.id] = result
            else:
                done[member.spec.id] = result
        return done

    def _fail(self, name: str, failed: JobFailed) -> None:
        """What one command could not do fails everyone whose source it was to quiesce."""
        for member in self._quiet[name]:
            self._failed.setdefault(member.spec.id, failed)

    def _brace(self, member: Member) -> None:
        self._find(member).brace(self._roots, member.spec)

    def _make(self, member: Member) -> Made:
        driver, begin = self._find(member), boottime()
        made = driver.cut(self._roots, member.spec, member.opened)
        return Made(made, begin, boottime())

    def _command(self, name: str) -> Quiesce:
        """One call for all the sources that it is of."""
        config = self._roots.config
        paths = dict.fromkeys(volumespec.label(member.spec.source.volume) for member in self._quiet[name])
        return Quiesce(name, config.commands.get(name, ()), [*paths], limit=config.thaw_after)

    def _clock(self) -> tuple[float, float]:
        """What Redis' clock is ahead of ours, at least and at most: it was read somewhere within the call."""
        asked, now, heard = boottime(), self._answers.now(), boottime()
        return now - heard, now - asked

    def _answer(self, job: JobId, told: Mapping[JobId, Cut]) -> Answer:
        if failed := self._failed.get(job):
            log.warning("job %s: %s", job, failed.text)
            return Answer(job, failed.errno, failed.text)
        return Answer(job, result=told[job].to_dict())


def _quiesce(member: Member) -> str:
    return str(member.spec.options.get("quiesce") or "")


def _frozen(freeze: Quiesce) -> JobFailed | None:
    """Freeze; why it could not be."""
    try:
        if freeze.freeze():
            return None
        return JobFailed(errno.EPERM, "its quiesce command is not allowed by host.toml any more")
    except JobFailed as failed:
        return failed


def _told(made: Made, clocks: Sequence[tuple[float, float]]) -> Cut:
    """When it was made by Redis' clock: surely not before, and surely not after."""
    least, most = min(ahead for ahead, _ in clocks), max(ahead for _, ahead in clocks)
    return replace(made.cut, begin=made.begin + least, end=made.end + most)
