"""What a driver is: one kind of job.  Its steps run on the host, each may be called again after any crash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.store.attempts import Claim
from blockworker.copy.digests import DigestFile
from blockworker.copy.extents import RangeSet
from blockworker.roots import Roots
from blockworker.volumes import Identity, Source, Target


@dataclass(frozen=True, slots=True)
class Opened:
    """What OPEN found: the size in bytes, the source's identity, and the locks to take, by device and inode."""

    size: int
    allocated: int
    identity: Identity
    reads: str
    writes: str


@dataclass(frozen=True, slots=True)
class Attached:
    """What an attempt copies with; ``done`` is what an earlier attempt made durable in this very staging file."""

    source: Source
    target: Target
    digests: DigestFile | None
    done: RangeSet
    staging: str

    def close(self) -> None:
        self.source.close()
        self.target.close()


class Driver(Protocol):
    def open(self, roots: Roots, spec: JobSpec, wanted: Callable[[], bool]) -> Opened:
        """Look before anybody copies: source, target, locks; make the staging file.  Raises JobFailed.

        ``wanted`` tells whether the registry still waits for it: asked before anything is made, under the lock
        that an abort takes, so that nothing is made behind an abort's back.
        """

    def attach(self, roots: Roots, claim: Claim) -> Attached:
        """Open both volumes for one attempt; the staging file's lock is held until ``close``.  Raises JobFailed."""

    def prepare(
        self, roots: Roots, spec: JobSpec, durable: Checkpoint, opened: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Make sure that a commit cannot fail: everything durable and complete.  Raises JobFailed."""

    def commit(self, roots: Roots, spec: JobSpec, number: int) -> None:
        """Publish.  ``number``: of the decision."""

    def abort(self, roots: Roots, spec: JobSpec, number: int, *, opened: bool) -> None:
        """Remove everything this job made.  ``opened``: its OPEN was answered for."""

    def clean(self, roots: Roots, spec: JobSpec) -> None:
        """After commit or abort, always: close the books on this host once no member of the transaction is open."""
