"""What a driver is: one kind of job.  The public interface, and all that a driver of somebody else needs.

A distribution brings its own by an entry point of the group ``blockjobs.drivers``, named as the job's type, that is a
class without arguments derived from ``Driver``.  Two rules: every step of ``Driver`` may be called again after any
crash, and then finds done what is done; and no target is written while a ``Work`` is paused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from blockjobs.model.cuts import Cut
from blockjobs.model.errors import VolumeError
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.registry.attempts import Claim, Progress
from blockworker.host.roots import Roots
from blockworker.records.batch import Batch
from blockworker.system.together import Durably
from blockworker.targets.given import Prepared
from blockworker.volumes import Identity


@dataclass(frozen=True, slots=True)
class Opened:
    """What OPEN found: the size in bytes, the source's identity, and the locks to take, by device and inode.

    ``cut``: how the source is going to be cut; "": not at all, and then ``uncut`` may say why.
    ``allocated``: bytes that the source takes up, if it is a raw file; None: what a copy takes up is not known.
    ``warnings``: sentences about what is not as it was asked for, and fails nothing.
    ``notes``: what people should know of the source, a line each.  ``damage``: what is wrong with it, where that does
    not fail the job.  Both are warnings, too.  ``unchecked``: whether an attempt has to look for damage before it
    copies.
    """

    size: int
    allocated: int | None
    identity: Identity
    reads: str
    writes: str
    cut: str = ""
    uncut: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    unchecked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What later steps are told of it; what is empty is left out."""
        more = {"notes": list(self.notes), "damage": list(self.damage), "unchecked": self.unchecked}
        found = {name: value for name, value in more.items() if value}
        return {"size": self.size, "identity": self.identity.to_list(), **found}


class Job(Protocol):
    """A claimed job as its driver sees it: what it was told, and the way to say something."""

    @property
    def spec(self) -> JobSpec: ...

    @property
    def claim(self) -> Claim: ...

    def point(self) -> None:
        """The pause point: returns at once while there is nothing to obey, stays while the job is held.

        Calls ``pause``, ``drain``, ``resume``, ``set_speed`` and ``complete`` of the work meanwhile.  Unwinds (with
        JobCancelled, LeaseLost or Parked, which a driver lets through) when the attempt has to end.
        """

    def wait(self, seconds: float) -> None:
        """Until somebody calls ``wake``, an order comes, or the time is over."""

    def wake(self) -> None:
        """There is something to look at; any thread may say so."""

    def judge(self, trouble: VolumeError) -> None:
        """Ask the job's error policy.  Raises the error where it ends the job; else what failed is tried again,
        behind the next ``point`` (it may be an order to stop)."""

    def ready(self) -> None:
        """The target has come up with the source; again is harmless."""

    def diverging(self, *, passes: int, dirty_rate: int, copy_rate: int) -> None:
        """The source changes faster than it can be followed, in bytes a second; all 0: not any more."""

    def checkpoint(self, durable: Checkpoint) -> None:
        """Record what is durable; any thread.  Raises LeaseLost, or redis.RedisError: no answer."""


class Work(ABC):
    """One attempt at a job, its volumes open.

    ``start``, and through it all that follows it, is called by one thread; ``progress`` and ``pulse`` by another one.
    """

    @abstractmethod
    def start(self, job: Job) -> None:
        """Do the job.  Returns when all of it is done and durable; calls ``job.point()`` five times a second."""

    @abstractmethod
    def progress(self) -> Progress:
        """How far it has come."""

    def pulse(self) -> int:
        """A number that changes as long as the work is alive, also where it has nothing to do."""
        return self.progress().offset

    @property
    def durable(self) -> Checkpoint | None:
        """What of the target is known to be durable; the next attempt is given it."""
        return None

    def pause(self) -> None:
        """Stop; when it returns nothing is written until ``resume``."""

    def drain(self) -> None:
        """Make durable, and record, what was written so far; called while paused.  Raises JobFailed: final."""

    def resume(self) -> None:
        """Go on."""

    def check(self) -> None:
        """Raise VolumeError where it is known that the work cannot go on; called a few times a second while paused."""

    def set_speed(self, speed: int) -> None:
        """The limit in bytes a second, 0: none; called first before ``start``."""

    def complete(self) -> None:
        """A ready job shall come to its end, with a consistent copy; may be called again."""

    def result(self) -> Mapping[str, Any]:
        """What ``prepare`` is given of this attempt, besides what every attempt tells."""
        return {"source-change": "unknown"}

    def close(self) -> None:
        """Give everything up, after success and failure alike."""


class Driver(ABC):
    """The steps of a job on its host.  What is not overridden does nothing."""

    @abstractmethod
    def open(self, roots: Roots, spec: JobSpec, wanted: Callable[[], bool]) -> Opened:
        """Look before anybody starts: source, target, locks; make the staging file.  Raises JobFailed.

        ``wanted`` tells whether the registry still waits for it: asked before anything is made, under the lock
        that an abort takes, so that nothing is made behind an abort's back.
        """

    def opening(self, batch: Batch, spec: JobSpec, wanted: Callable[[], bool]) -> Durably[Opened]:
        """``open`` as a part of a batch of members, which share their waits for the disk (``system.together``).

        This, ``preparing`` and ``committing`` need not be overridden: a member whose steps are calls waits by itself.
        """
        found = self.open(batch.roots, spec, wanted)
        yield ()
        return found

    def brace(self, roots: Roots, spec: JobSpec) -> None:
        """The cut is next: whatever makes it short, while nothing stands still yet.  Raises JobFailed."""

    def cut(self, roots: Roots, spec: JobSpec, opened: Mapping[str, Any]) -> Cut:  # noqa: ARG002
        """Make the point in time: what an attempt reads from then on, which finds it as ``opened["cut"]``.

        Called if OPEN said that there is something to cut, for all members of the host's share at once, by several
        threads; their sources stand still, those of other hosts may not.  No member of the transaction copies before
        each one has its cut.  Again: the one before may be there; nobody has read it.  Raises JobFailed.
        """
        return Cut()

    def keep(self, roots: Roots, spec: JobSpec, cut: Cut) -> None:
        """Make the cut durable; nothing stands still any more.  It has to be gone after commit and abort."""

    @abstractmethod
    def attached(self, roots: Roots, job: Job) -> Work:
        """A claim was taken on this host: open what one attempt needs, until ``close``.  Raises JobFailed."""

    def prepare(
        self, roots: Roots, spec: JobSpec, durable: Checkpoint, opened: Mapping[str, Any], result: Mapping[str, Any]
    ) -> Prepared | None:
        """Make sure that a commit cannot fail: everything durable and complete.  Raises JobFailed."""

    def preparing(
        self, batch: Batch, spec: JobSpec, durable: Checkpoint, opened: Mapping[str, Any], result: Mapping[str, Any]
    ) -> Durably[Prepared | None]:
        """``prepare`` as a part of a batch of members."""
        prepared = self.prepare(batch.roots, spec, durable, opened, result)
        yield ()
        return prepared

    def commit(self, roots: Roots, spec: JobSpec, number: int) -> None:
        """Publish.  ``number``: of the decision."""

    def committing(self, batch: Batch, spec: JobSpec, number: int) -> Durably[None]:
        """``commit`` as a part of a batch of members."""
        self.commit(batch.roots, spec, number)
        yield ()

    def abort(self, roots: Roots, spec: JobSpec, number: int, *, opened: bool) -> str | None:
        """Remove everything this job made.  ``opened``: its OPEN was answered for.

        Returns what cannot be taken back, a sentence for people: the target is undefined (event TARGET_UNDEFINED).
        """

    def clean(self, roots: Roots, spec: JobSpec) -> None:
        """After commit or abort, always: close the books on this host once no member of the transaction is open."""
