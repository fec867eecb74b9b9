"""The interface of a driver, the code for one type of job: public, and sufficient for a driver outside this project.

A distribution adds a driver by an entry point of the group ``blockjobs.drivers``; the entry point has the name of the
job type and gives a class derived from ``Driver`` whose constructor takes no arguments.  Two rules: every step of
``Driver`` may be called again after any crash, and then skips the work already done; and no target is written while a
``Work`` is paused.
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
    """The result of OPEN: the size in bytes, the source's identity, and the locks to take, by device and inode.

    ``cut``: the method by which the source will be cut; "": no cut, and ``uncut`` may give the reason.
    ``allocated``: bytes that the source occupies, if the source is a raw file; None: unknown.
    ``warnings``: sentences about deviations from the request that do not fail the job.
    ``notes``: facts about the source for people, a line per fact; shown as warnings.
    ``damage``: defects of the source that do not fail the job, a line per defect; shown as warnings.
    ``unchecked``: whether an attempt has to check the source for damage before the copy.
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
        """The values for later steps; empty values are left out."""
        more = {"notes": list(self.notes), "damage": list(self.damage), "unchecked": self.unchecked}
        found = {name: value for name, value in more.items() if value}
        return {"size": self.size, "identity": self.identity.to_list(), **found}


class Job(Protocol):
    """A claimed job as its driver sees the job: the orders, and the calls for reports."""

    @property
    def spec(self) -> JobSpec: ...

    @property
    def claim(self) -> Claim: ...

    def point(self) -> None:
        """Obey the orders at the pause point: return at once if there is none, wait while the job is held.

        Meanwhile calls ``pause``, ``drain``, ``resume``, ``set_speed`` and ``complete`` of the work.  Raises
        JobCancelled, LeaseLost or Parked, for the driver to let through, when the attempt has to end.
        """

    def wait(self, seconds: float) -> None:
        """Wait for a call of ``wake``, for an order, or for the end of the time."""

    def wake(self) -> None:
        """End the current ``wait``; any thread may call."""

    def judge(self, trouble: VolumeError) -> None:
        """Ask the job's error policy; raise ``trouble`` if the error ends the job.

        After a return the driver retries the failed operation behind the next ``point``, which may bring an order to
        stop.
        """

    def ready(self) -> None:
        """Report that the target has caught up with the source; a repeated call is harmless."""

    def diverging(self, *, passes: int, dirty_rate: int, copy_rate: int) -> None:
        """Report that the source changes faster than the job copies, in bytes per second; 0 in each: no longer."""

    def checkpoint(self, durable: Checkpoint) -> None:
        """Record the durable ranges; any thread may call.  Raises LeaseLost, or redis.RedisError without an answer."""


class Work(ABC):
    """An attempt at a job, with open volumes.

    A thread calls ``start`` and, from within ``start``, the other methods; a second thread calls ``progress`` and
    ``pulse``.
    """

    @abstractmethod
    def start(self, job: Job) -> None:
        """Do the job; return when the whole result is durable.  Calls ``job.point()`` five times a second."""

    @abstractmethod
    def progress(self) -> Progress:
        """The progress of the job."""

    def pulse(self) -> int:
        """A number that changes while the work is alive, even if the work has nothing to do."""
        return self.progress().offset

    @property
    def durable(self) -> Checkpoint | None:
        """The ranges of the target known to be durable; the next attempt receives this value."""
        return None

    def pause(self) -> None:
        """Stop; after the return no byte is written until ``resume``."""

    def drain(self) -> None:
        """Make the written bytes durable, and record the ranges; called while paused.  Raises JobFailed: final."""

    def resume(self) -> None:
        """Continue after ``pause``."""

    def check(self) -> None:
        """Raise VolumeError if the work is known to be unable to continue; called a few times a second while paused."""

    def set_speed(self, speed: int) -> None:
        """Set the limit in bytes per second, 0: no limit; first called before ``start``."""

    def complete(self) -> None:
        """Bring a ready job to its end, with a consistent copy; may be called again."""

    def result(self) -> Mapping[str, Any]:
        """The attempt's values for ``prepare``, in addition to the values of every attempt."""
        return {"source-change": "unknown"}

    def close(self) -> None:
        """Release every resource, after success and after failure."""


class Driver(ABC):
    """The steps of a job on its host.  A step that is not overridden does nothing."""

    @abstractmethod
    def open(self, roots: Roots, spec: JobSpec, wanted: Callable[[], bool]) -> Opened:
        """Check source, target and locks before the transaction starts; make the staging file.  Raises JobFailed.

        ``wanted`` tells whether the registry still waits for this step.  The driver asks before making a file, under
        the lock that an abort takes, so that no file is made after an abort has removed the job's files.
        """

    def opening(self, batch: Batch, spec: JobSpec, wanted: Callable[[], bool]) -> Durably[Opened]:
        """Run ``open`` as a part of a batch of members, which share their waits for the disk (``system.together``).

        A driver need not override ``opening``, ``preparing`` and ``committing``: a member whose steps are plain calls
        waits alone.
        """
        found = self.open(batch.roots, spec, wanted)
        yield ()
        return found

    def brace(self, roots: Roots, spec: JobSpec) -> None:
        """Do the work that shortens the cut, which is next; no source is frozen yet.  Raises JobFailed."""

    def cut(self, roots: Roots, spec: JobSpec, opened: Mapping[str, Any]) -> Cut:  # noqa: ARG002
        """Make the cut, the point in time that an attempt reads from then on; an attempt finds it in ``opened["cut"]``.

        Called if OPEN said that there is a source to cut: by several threads, for every member on this host at once.
        The members' sources on this host are frozen; the sources on other hosts may not be.  No member of the
        transaction copies before every member has its cut.  On a repeated call the earlier cut may exist; no copy has
        read the earlier cut.  Raises JobFailed.
        """
        return Cut()

    def keep(self, roots: Roots, spec: JobSpec, cut: Cut) -> None:
        """Make the cut durable, after the sources are thawed.  Commit and abort have to remove the cut."""

    @abstractmethod
    def attached(self, roots: Roots, job: Job) -> Work:
        """Open the volumes for one attempt whose claim was taken on this host, until ``close``.  Raises JobFailed."""

    def prepare(
        self, roots: Roots, spec: JobSpec, durable: Checkpoint, opened: Mapping[str, Any], result: Mapping[str, Any]
    ) -> Prepared | None:
        """Make sure that a commit cannot fail: the result is durable and complete.  Raises JobFailed."""

    def preparing(
        self, batch: Batch, spec: JobSpec, durable: Checkpoint, opened: Mapping[str, Any], result: Mapping[str, Any]
    ) -> Durably[Prepared | None]:
        """Run ``prepare`` as a part of a batch of members."""
        prepared = self.prepare(batch.roots, spec, durable, opened, result)
        yield ()
        return prepared

    def commit(self, roots: Roots, spec: JobSpec, number: int) -> None:
        """Publish the result.  ``number``: number of the decision."""

    def committing(self, batch: Batch, spec: JobSpec, number: int) -> Durably[None]:
        """Run ``commit`` as a part of a batch of members."""
        self.commit(batch.roots, spec, number)
        yield ()

    def abort(self, roots: Roots, spec: JobSpec, number: int, *, opened: bool) -> str | None:
        """Remove every file that this job made.  ``opened``: OPEN of the job was answered.

        Returns a sentence for people if the target is undefined because a change cannot be undone (event
        TARGET_UNDEFINED).
        """

    def clean(self, roots: Roots, spec: JobSpec) -> None:
        """Run after each commit or abort: close the host's journal once no member of the transaction is open."""
