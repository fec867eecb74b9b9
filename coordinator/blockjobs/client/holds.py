"""Bring many jobs to rest at a time: pause-all, drains, and the wait until nothing is written any more.

The part of ``blockjobs.Fleet`` for holds of many jobs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence

from blockjobs.client.event_stream import BLOCK, Stream
from blockjobs.model.errors import BadInput, NoSuchJob, NoSuchRun, Refused, WaitTimedOut
from blockjobs.model.ids import job_id as wellformed
from blockjobs.model.states import ACCEPTS, Status, Verb
from blockjobs.model.volumespec import parse_volume
from blockjobs.registry.doors import Registry
from blockjobs.registry.holds import ALL, DRAIN, Holding
from blockjobs.registry.nodes import NoSuchNode
from blockjobs.registry.odd import STRICT
from blockjobs.registry.views import JobPlace, JobView, Views


class Standstill:
    """Mixed into ``Fleet``, which brings the registry."""

    registry: Registry

    def pause_all(self, name: str = "", *, cause: str = "", owner: str = "", seconds: float = 0.0) -> tuple[str, int]:
        """Hold every job that exists now; return the name for ``resume_all``, and the number of held jobs.

        ``seconds``: time until the pause-all ends by itself (0: never).

        Raises:
            Refused: ``name`` (drawn if empty) is in force already.
        """
        name = wellformed(name) if name else f"pause-{uuid.uuid4().hex[:6]}"
        if not self.registry.holds.begin(ALL + name, cause=cause, owner=owner, seconds=seconds):
            raise Refused(f"'{name}' pauses jobs already: resume them first, or give another name")
        return name, self.registry.holds.hold(ALL + name, cause)

    def holding(self) -> Sequence[Holding]:
        """The holds of many jobs (every pause-all and every drain), oldest first."""
        return self.registry.holds.records()

    def resume_all(self, name: str) -> int:
        """Lift a pause-all from exactly the jobs held by it; return the number of jobs."""
        lifted = self.registry.holds.lift(ALL + name)
        if lifted is None:
            raise Refused(f"nothing was paused by a pause-all named '{name}'")
        return lifted

    def drain(self, what: str, *, cause: str = "", owner: str = "", seconds: float = 0.0) -> int:
        """Hold the jobs of a host or a volume, present and future; return how many jobs are held now.

        The attempts end as soon as their copied bytes are durable: ``wait_drained`` waits for this.

        Raises:
            BadInput: ``what`` is neither a known host nor a volume (``HOST:/PATH``, or the name of a node).
        """
        name = self._drained(what)
        self.registry.holds.begin(DRAIN + name, cause=cause, owner=owner, seconds=seconds)
        self.registry.holds.hold(DRAIN + name, cause, self.registry.holds.drained_by(name))
        return sum(DRAIN + name in job.holds for job in self.drained(what))

    def drained(self, what: str) -> Iterator[JobView]:
        """The jobs under a drain of a host or a volume, without the concluded jobs."""
        jobs = self.registry.views.jobs(self.registry.holds.drained_by(self._drained(what)))
        return (job for job in jobs if job.status is not Status.CONCLUDED)

    def undrain(self, what: str) -> int:
        """Let the jobs of a host or of a volume go on; return the number of jobs that were held."""
        lifted = self.registry.holds.lift(DRAIN + self._drained(what))
        if lifted is None:
            raise Refused(f"'{what}' is not drained")
        return lifted

    def wait_drained(self, what: str, timeout: float | None = None) -> None:
        """Wait until no job under a drain has an attempt; raises WaitTimedOut."""
        self._still(self.registry.holds.drained_by(self._drained(what)), timeout, parked=True)

    def wait_quiescent(self, ids: Iterable[str], timeout: float | None = None, *, parked: bool = False) -> None:
        """Wait until paused runs and jobs write nothing any more; ``parked``: until they have no attempt.

        Raises:
            NoSuchRun: an id is of neither a run nor a job.
            WaitTimedOut: after ``timeout`` seconds; a job without a hold is never quiescent.
        """
        self._still([place for each in ids for place in self._places(each)], timeout, parked=parked)

    def _still(self, places: Sequence[JobPlace], timeout: float | None, *, parked: bool) -> None:
        give_up = None if timeout is None else time.monotonic() + timeout
        stream = Stream(self.registry, self.registry.events.last())
        views = Views(self.registry.client, internal=True, odd=STRICT)  # internal jobs are drained, too
        while moving := [job for job in views.jobs(places) if not is_quiescent(job, parked=parked)]:
            left = BLOCK if give_up is None else give_up - time.monotonic()
            if left <= 0:
                raise WaitTimedOut([job.id for job in moving], "parked" if parked else "quiescent")
            stream.take(min(BLOCK, left))
            places = [JobPlace(job.host, job.id, job.transaction) for job in moving]

    def _places(self, id_: str) -> Sequence[JobPlace]:
        try:
            return self.registry.views.places(self.registry.views.run_id(id_))
        except NoSuchRun as unknown:
            try:
                return [self.registry.views.place(id_)]
            except NoSuchJob:
                raise unknown from None

    def _drained(self, what: str) -> str:
        """The name of a host, or the lock of a volume; a bare word is a host first, ``node:NAME`` never."""
        if what in self.registry.hosts.known():
            return what
        name = what.removeprefix("node:")
        if name == what and (":" in what or "/" in what):
            return parse_volume(what).lock
        try:
            return self.registry.nodes.get(name).volume.lock
        except NoSuchNode:
            raise BadInput(f"'{name}' is neither a known host nor a registered volume") from None


def is_quiescent(job: JobView, *, parked: bool) -> bool:
    """Whether a job writes nothing until it is resumed; ``parked``: and has no attempt with open files or a slot."""
    if job.status not in ACCEPTS[Verb.PAUSE]:  # the copy is over, or ends now
        return not job.claimed
    return job.paused and not job.busy and not (parked and job.claimed)
