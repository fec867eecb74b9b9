"""A fleet without processes: runs to submit, and stand-ins for the finalizer, the hosts and the attempts.

The stand-ins call the same doors of the registry as the real ones do, one call at a time, so that a test can
stop between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from blockjobs.model import volumespec
from blockjobs.model.barriers import BY_HOSTS, BarrierView, Decide, Do, Finished, Next, Retry, Step, next_action
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.runs import RunPlan
from blockjobs.registry import keys
from blockjobs.registry.answers import Answer
from blockjobs.registry.attempts import Claim, Progress, Who
from blockjobs.registry.doors import HostRegistry, Registry
from blockjobs.registry.events import Event
from blockjobs.registry.submit import split_batches
from blockjobs.registry.transactions import Due

RUN = "nightly-20261122T103000Z"
ALPHA, BETA = Host("alpha"), Host("beta")
SIZE = 1 << 20


def spec(name: str, *, host: str = ALPHA, run: str = RUN, txn: str = "", **options: Any) -> JobSpec:
    """A job that copies an image of its own name."""
    options.setdefault("source", volumespec.parse_volume(f"{host}:/srv/{name}.img"))
    options.setdefault("target", volumespec.parse_volume(f"{host}:/backup/{name}.img"))
    return JobSpec(id=JobId(name), transaction=TxnId(txn or run), run=RunId(run), **options)


def grouped(*specs: JobSpec) -> RunPlan:
    return RunPlan(specs[0].run, "nightly", grouped=True, transactions=(specs,))


def many(jobs: int, *, hosts: int = 4, run: str = RUN) -> RunPlan:
    """A grouped run of many jobs, spread over hosts in blocks."""
    a_host = -(-jobs // hosts)
    return grouped(*(spec(f"job{n}", host=f"host{n // a_host}", run=run) for n in range(jobs)))


def who(attempt: str) -> Who:
    return Who(attempt, 4711, 1.5, "boot")


def dump(client: redis.Redis) -> dict[str, Any]:
    """The whole key space, as values that compare."""
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
        b"string": client.get,
        b"set": client.smembers,
    }
    return {key.decode(): read[client.type(key)](key) for key in client.scan_iter(count=5000)}


def only_asks(key: str) -> bool:
    """Whether a key only says that somebody asked the finalizer to look."""
    return key.endswith((keys.due().removeprefix("bj"), keys.due_wake().removeprefix("bj")))


class Silent:
    """A doorbell that nobody hears."""

    def copy(self, host: Host, job: JobId) -> None:
        """Nobody copies."""

    def step(self, host: Host, step: str, txn: TxnId) -> None:
        """Nobody answers."""


@dataclass
class Fleet:
    """``sick``: what a step fails with, by (step, job)."""

    client: redis.Redis
    sick: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    silent: frozenset[Host] = frozenset()

    def __post_init__(self) -> None:
        self.registry = Registry(self.client)
        self._hosts: dict[Host, HostRegistry] = {}
        self._attempts = 0

    def host(self, host: Host) -> HostRegistry:
        return self._hosts.setdefault(host, HostRegistry(self.client, host))

    def submit(self, *specs: JobSpec) -> TxnId:
        self.registry.submit.submit(grouped(*specs))
        return specs[0].transaction

    # --- the finalizer ----------------------------------------------------------------------------------

    def view(self, txn: TxnId) -> BarrierView:
        view = self.registry.transactions.view(txn)
        assert view is not None
        return view

    def next(self, txn: TxnId) -> Next:
        return next_action(self.view(txn), self.silent)

    def advance(self, txn: TxnId, view: BarrierView | None = None) -> Next:
        """Do the one thing that comes next (by ``view``, if it was taken earlier), and say what it was."""
        view = view or self.view(txn)
        match what := next_action(view, self.silent):
            case Decide(decision):
                self.registry.transactions.settle(view, decision, "because")
            case Do(step, hosts) if step in BY_HOSTS:
                for host in sorted(hosts - self.silent):
                    self.answer(host, txn, step)
            case Retry():
                self.registry.retries.retry(view)
            case Do(Step.CONCLUDE, hosts):
                self.registry.transactions.conclude(view, hosts)
            case Do(step, hosts) if step is not Step.RUN:
                for host in sorted(hosts):
                    getattr(self.registry.transactions, step)(view, host)
        return what

    def walk(self, txn: TxnId, until: Step | type[Next] = Finished) -> Next:
        """Advance until this comes next, or nothing does."""
        for _ in range(100):
            if self._is(what := self.next(txn), until):
                return what
            assert not self._is(what, Step.RUN), f"{txn}: somebody has to copy first"
            self.advance(txn)
        raise AssertionError(f"{txn}: {until} never comes, it is always {what}")

    @staticmethod
    def _is(what: Next, wanted: Any) -> bool:
        return isinstance(what, Finished | Retry) or (
            isinstance(what, Do) and what.step is wanted if isinstance(wanted, Step) else isinstance(what, wanted)
        )

    def again(self, txn: TxnId) -> TxnId:
        """Walk to where its only member is tried again, and do so; the transaction that it is in now."""
        (job,) = self.client.lrange(keys.members(next(iter(self.view(txn).shares)), txn), 0, -1)
        assert self.walk(txn, Retry) == Retry()
        self.advance(txn)
        return self.registry.views.job(job.decode()).transaction

    def close(self, txn: TxnId) -> None:
        """As the finalizer does when it is over."""
        for due in self.due():
            if due.txn == txn:
                self.registry.transactions.close(due, self.view(txn), finished=isinstance(self.next(txn), Finished))

    def due(self) -> list[Due]:
        """What a finalizer would look at."""
        return self.registry.transactions.due([*self._hosts])

    # --- a host -------------------------------------------------------------------------------------------

    def answer(self, host: Host, txn: TxnId, step: str) -> None:
        """Answer a step for every member of a host, as its disks have it."""
        door = self.host(host).answers
        jobs = [member.spec.id for member in door.members(txn) if not (step == Step.SETTLE and member.claimed)]
        for batch in split_batches(jobs, 100):
            door.answer(txn, step, [self._said(step, job) for job in batch])

    def _said(self, step: str, job: JobId) -> Answer:
        errno, text = self.sick.get((step, job), (0, ""))
        return Answer(job, errno, text, reads=f"r-{job}", writes=f"w-{job}", size=SIZE)

    # --- an attempt ---------------------------------------------------------------------------------------

    def claim(self, job: JobSpec) -> Claim:
        self._attempts += 1
        claim = self.host(job.host).attempts.claim(job.id, who(f"attempt{self._attempts}"))
        assert isinstance(claim, Claim), claim
        return claim

    def finish(self, claim: Claim, errno: int = 0, text: str = "") -> None:
        self.host(claim.spec.host).attempts.finish(
            claim, Progress(SIZE, SIZE), durable=None, result={}, errno=errno, text=text
        )

    def copy(self, *jobs: JobSpec) -> None:
        for job in jobs:
            self.finish(self.claim(job))

    # --- what came of it ----------------------------------------------------------------------------------

    def status(self, job: str) -> str:
        return str(self.registry.views.job(job).status)

    def record(self, job: JobSpec) -> dict[str, str]:
        record = self.client.hgetall(keys.job(job.host, job.id))
        return {name.decode(): value.decode("utf-8", "replace") for name, value in record.items()}

    def history(self) -> list[Event]:
        """All events, those that hosts told and nobody moved among them."""
        self.registry.events.merge([*self._hosts])
        return [*self.registry.events.all()]

    def events(self, *names: str) -> list[tuple[str, str]]:
        return [(event.name, event.id) for event in self.history() if event.name in names]

    def replayed(self) -> dict[str, str]:
        """Where the stream of status changes says that every job is; refuses a gap in it."""
        at: dict[str, str] = {}
        for event in self.history():
            if event.name == "JOB_STATUS_CHANGE":
                assert at.get(event.id, "undefined") == event.fields["from"], event
                at[event.id] = event.fields["status"]
                if event.fields["status"] == "null":
                    del at[event.id]  # the id is free: the next one of that name begins anew
        return at
