"""The fleet from Python: ``blockjobs.Fleet(url)`` submits runs, answers questions, and waits for the end.

The client talks to Redis only; like every client the process may die at any moment without harm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, Self

from blockjobs.client.event_stream import BLOCK, Patience, Records, Stream, event_success
from blockjobs.client.holds import Standstill
from blockjobs.client.stores import Budgets
from blockjobs.model.errors import (
    BadInput,
    HostDown,
    NoSuchJob,
    NoSuchRun,
    Refused,
    RunGone,
    VerbRefused,
    WaitTimedOut,
)
from blockjobs.model.ids import Host, RunId
from blockjobs.model.ids import checked_host_name as checked_host
from blockjobs.model.liveness import WorkerName
from blockjobs.model.policies import Verdict
from blockjobs.model.runs import RunPlan
from blockjobs.model.states import Status
from blockjobs.model.volumespec import HostedVolume, is_name, parse_volume, to_dict
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.registry.events import Event
from blockjobs.registry.fitness import expect_fit_server
from blockjobs.registry.format import expect_same_format
from blockjobs.registry.glances import Glances
from blockjobs.registry.hostnames import Carried
from blockjobs.registry.hosts import HostView, check_host
from blockjobs.registry.nodes import Node
from blockjobs.registry.views import JobView, RunView
from blockjobs.settings import find_url

LOOKED_AT: Final = 50  # ids whose records `wait` checks at a time: a glob may mean thousands of jobs


class Fleet(Standstill, Budgets):
    """A connection to a fleet, for use in a ``with`` block; otherwise call ``close``.

    Raises:
        NoRedis: no URL of Redis is given, Redis does not answer, or this Redis would lose acknowledged writes.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = find_url(url)
        client = connect_client(self.url)
        try:
            expect_fit_server(client, self.url, warn=False)
            expect_same_format(client)
        except BaseException:
            client.close()
            raise
        self.registry = Registry(client)
        self.glances = Glances(client, self.registry.odd)

    def close(self) -> None:
        self.registry.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- runs and jobs --------------------------------------------------------------------------------

    def submit(self, plan: RunPlan) -> RunId:
        """Submit a run completely, or not at all.

        Raises:
            HostDown: a host is not known, or not up.
            Refused: an id or a volume is in use.
            RunGoing: a run of the same name is not over, and ``fields.on_overlap`` is refuse.
            RunSkipped: a run of the same name is not over, and ``fields.on_overlap`` is skip.
        """
        known = self.registry.hosts.known()
        for host in dict.fromkeys(job.host for job in plan.jobs):
            check_host(host, known.get(host))
        if lost := self.registry.memory.doubt_hosts({job.host for job in plan.jobs}):
            raise Refused(f"nothing can be decided about such a run: {lost}")
        self.registry.submit.submit(plan)
        return plan.run

    def get(self, job_id: str) -> JobView:
        """A job by its id; raises NoSuchJob."""
        return self.registry.views.job(job_id)

    def run(self, run_id: str) -> RunView:
        """A run by its id; raises NoSuchRun."""
        return self.registry.views.run(run_id)

    def verdict(self, run_id: str) -> Verdict:
        """The verdict on an ended run by the policies of its file: all, partial, failed; raises NoSuchRun."""
        return self.registry.views.verdict(run_id)

    def runs(self, *, limit: int = 0) -> list[RunView]:
        """Runs, newest first; ``limit`` 0: no limit."""
        return self.registry.views.runs(limit=limit)

    def list(self, run_id: str) -> Iterator[JobView]:
        """The jobs of a run without the dismissed ones, in the order of the file; raises NoSuchRun."""
        return self.registry.views.jobs(self.registry.views.places(self.registry.views.run_id(run_id)))

    def hosts(self) -> Iterable[HostView]:
        return self.registry.hosts.views()

    # --- named volumes: a volume written as a word without ``:`` and ``/`` is the name of a volume -------------

    def volume(self, name: str) -> HostedVolume:
        """The volume of a name; raises Refused."""
        return self.registry.nodes.get(name).volume

    def volumes(self) -> Iterable[Node]:
        """The named volumes, by name."""
        return self.registry.nodes.list()

    def add_volume(self, name: str, volume: object) -> None:
        """Name a volume: ``HOST:/PATH``, or a mapping of QEMU's ``blockdev-add`` keys with ``host``.

        Raises:
            Refused: the name is taken.
            BadInput: the name or the volume is malformed.
        """
        if not is_name(name):
            raise BadInput(f"invalid name {name!r}: a letter, then letters, digits, '.', '-' and '_' were expected")
        named = replace(parse_volume(volume), node=name)
        self.registry.nodes.add(Node(name, named, to_dict(named)))

    def remove_volume(self, name: str) -> None:
        """Forget a name; raises Refused if the name is unknown, or in use by a job."""
        self.registry.nodes.remove(name)

    # --- the verbs: a verb takes effect or raises Refused -----------------------------------------------

    def pause(self, job_id: str, *, cause: str = "", owner: str = "", seconds: float = 0.0) -> Status:
        """Hold a job; ``seconds``: time until the hold ends by itself (0: never)."""
        return self.registry.verbs.pause(job_id, cause=cause, owner=owner, seconds=seconds)

    def resume(self, job_id: str) -> Status:
        return self.registry.verbs.resume(job_id)

    def cancel(self, job_id: str, *, force: bool = True, wait: bool = False, timeout: float | None = None) -> Status:
        """Cancel a job, and with it the transaction; without ``force`` a ready job finishes with a consistent copy.

        ``wait``: return only when the job is concluded (raises WaitTimedOut after ``timeout`` seconds).
        """
        status = self.registry.verbs.cancel(job_id, force=force)
        return self._concluded([job_id], timeout) if wait else status

    def cancel_all(self, *, wait: bool = False, timeout: float | None = None) -> int:
        """Cancel every job still open to cancellation, newest first; return the number of jobs."""
        asked = []
        for place in reversed(list(self.registry.holds.live())):
            with suppress(VerbRefused, NoSuchJob):  # over, or decided
                self.registry.verbs.cancel(place.job)
                asked.append(place.job)
        if wait:
            self._concluded(asked, timeout)
        return len(asked)

    def complete(self, job_id: str, *, wait: bool = False, timeout: float | None = None) -> Status:
        """Let a ready job finish; ``wait``: return only when the job is concluded."""
        status = self.registry.verbs.complete(job_id)
        return self._concluded([job_id], timeout) if wait else status

    def set_speed(self, job_id: str, speed: int) -> int:
        """Limit a job to ``speed`` bytes a second (0: no limit); returns the limit before."""
        return self.registry.verbs.set_speed(job_id, speed)

    def finalize(self, job_id: str) -> None:
        self.registry.verbs.finalize(job_id)

    def dismiss(self, job_id: str) -> None:
        self.registry.verbs.dismiss(job_id)

    def move(self, job_id: str, to: str, *, timeout: float | None = 60.0) -> Status:
        """Hand a job to another host with the same volumes under the same paths; return the job's status there.

        Raises:
            HostDown: the other host is not up, or does not answer.
            Refused: the other host does not see the volumes, or the job is in no state to be moved.
            WaitTimedOut: the job's attempt did not end in time; the job goes on where it is.
        """
        from blockjobs.client.handover import hand_over  # noqa: PLC0415 - Celery takes half a second to import

        return hand_over(self, job_id, to, timeout)

    def abandon(self, host: str) -> int:
        """Give up a host gone for good: end its members with an error to this effect; return the number of members.

        No transaction waits for the host any more.  A host that returns carries out the decisions made meanwhile.

        Raises:
            HostDown: the host is not known.
            Refused: the steps worker of the host is up, and carries out decisions.
        """
        judged = self.registry.hosts.known().get(Host(host))
        if judged is None:
            raise HostDown(host, "is not known: no worker has registered under this name")
        if not judged.lacks(WorkerName.STEPS):
            there = "is up" if judged.state == "up" else "has its steps worker, which does what is decided"
            raise Refused(f"host '{host}' {there}: cancel its jobs, or drain it and stop its workers")
        return self.registry.transactions.abandon(Host(host))

    def rename_host(self, old: str, new: str, *, by: str = "") -> Carried:
        """Carry the records of a host over to its new name: history, backups, jobs on record, limits, drains.

        Raises:
            HostDown: the old name is not known.
            Refused: a worker of the old name is up, the host has jobs that are not over, or the new name has
                records of its own already.
        """
        self._expect_gone(old)
        if old == new:
            raise Refused(f"host '{old}' is called so already")
        return self.registry.hostnames.rename(Host(old), checked_host(new), by)

    def remove_host(self, host: str, *, with_history: bool = False, by: str = "") -> Carried:
        """Forget a host for good, without touching its disks.  ``with_history``: forget its published backups, too.

        Raises:
            HostDown: the host is not known.
            Refused: a worker of the host is up, the host has jobs that are not over, or backups are on record.
        """
        self._expect_gone(host)
        backups = len(self.registry.hostnames.backups(Host(host)))
        if backups and not with_history:
            raise Refused(f"host '{host}' has {backups} backups on record: --with-history forgets them, too")
        return self.registry.hostnames.remove(Host(host), by)

    def _expect_gone(self, host: str) -> None:
        judged = self.registry.hosts.known().get(Host(host))
        if judged is None:
            raise HostDown(host, "is not known: no worker has registered under this name")
        if judged.state == "up" or not all(judged.lacks(worker) for worker in WorkerName):
            raise Refused(f"host '{host}' has a worker that is there: stop its workers first")

    def accept_loss(self, number: int) -> int:
        """Go on with a registry after a loss of decisions up to ``number``; return the highest number that counts now.

        Raises:
            Refused: a host or a finalizer knows of a decision beyond ``number``.
        """
        highest = self.registry.memory.highest_lost()
        if number < highest:
            raise Refused(f"a host knows decision {highest}: a number of at least that was expected, not {number}")
        return self.registry.memory.accept_loss(number)

    # --- events -----------------------------------------------------------------------------------------

    def events(self, after: str = "0", *, follow: bool = False) -> Iterator[Event]:
        """Every event after ``after``; with ``follow`` also the events to come, without an end."""
        for event in self.registry.events.all(after):
            after = event.seq
            yield event
        stream = Stream(self.registry, after)
        while follow:
            yield from stream.take(BLOCK)

    def wait(self, ids: Iterable[str], timeout: float | None = None, *, patience: float = math.inf) -> dict[str, bool]:
        """Wait until runs and jobs are concluded; return by id whether the run (with every job) or the job succeeded.

        Raises:
            NoSuchRun: an id is of neither a run nor a job.
            WaitTimedOut: after ``timeout`` seconds.
            RunGone: a run or job was removed from the registry, or Redis came back without it.
            SightLost: Redis was away for more than ``patience`` seconds.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        ids = list(ids)
        sight = Patience(patience, what=", ".join(ids))
        stream = Stream(self.registry, self.registry.events.last(), sight)  # before the first look: nothing is missed
        records = Records(stream)
        outcome = {each: self._outcome(each) for each in ids}
        while open_ := [each for each, succeeded in outcome.items() if succeeded is None]:
            left = BLOCK if give_up is None else give_up - time.monotonic()
            if left <= 0:
                raise WaitTimedOut(open_)
            for event in stream.take(min(BLOCK, left)):
                if outcome.get(event.id, True) is None and (told := event_success(event)) is not None:
                    outcome[event.id] = sight.ask(partial(self._ended, event.id, told))
            open_ = [each for each, succeeded in outcome.items() if succeeded is None]
            for each in records.twice(partial(self._strange, open_[:LOOKED_AT])):
                outcome[each] = sight.ask(partial(self._ended, each, None))
        return {each: bool(succeeded) for each, succeeded in outcome.items()}

    def _ended(self, id_: str, told: bool | None) -> bool | None:
        """The outcome by the record, or by the event where the record is gone; raises RunGone without both."""
        try:
            return self._outcome(id_)
        except NoSuchRun:
            if told is None:
                raise RunGone(id_) from None
            return told

    def _strange(self, ids: Iterable[str]) -> Iterator[str]:
        """The ids whose record is gone, or says that the run or job is over."""
        for each in ids:
            try:
                if self._outcome(each) is not None:
                    yield each
            except NoSuchRun:
                yield each

    def _concluded(self, jobs: Sequence[str], timeout: float | None) -> Status:
        """Wait for jobs whose records may be removed meanwhile."""
        give_up = None if timeout is None else time.monotonic() + timeout
        for job in jobs:
            with suppress(NoSuchRun, RunGone):  # dismissed already
                self.wait([job], None if give_up is None else max(0.0, give_up - time.monotonic()))
        return Status.CONCLUDED

    def _outcome(self, id_: str) -> bool | None:
        """Whether a run or a job succeeded, despite other damage to its record; None: not over."""
        try:
            return self.registry.views.outcome(id_)
        except NoSuchRun as unknown:
            try:
                _, status, ret = self.registry.views.published(id_)
            except NoSuchJob:
                raise unknown from None
            return ret == 0 if status is Status.CONCLUDED else None
