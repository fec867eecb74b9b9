"""The name of a host: moving the registry's records of a host to another name, or forgetting the records.

Both are refused while the host is up or has unfinished jobs, and no other process writes meanwhile.  Every step may be
repeated: the next call finishes an interrupted call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from blockjobs.model.errors import Refused
from blockjobs.model.ids import Host, RunId, TxnId
from blockjobs.model.keep import PublishedTarget
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.found import FoundBackups, under_new_name
from blockjobs.registry.handover import job_on_host
from blockjobs.registry.history import History, pack_history_entry
from blockjobs.registry.nodes import Node, Nodes, record_of
from blockjobs.registry.odd import STRICT
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.verbs import Verbs
from blockjobs.registry.views import JobPlace, JobView, Views


class KeyFate(StrEnum):
    """The fate of a host's key when the host gets another name."""

    WITH_JOBS = "it is a job's, and goes with its record"
    CARRIED = "it goes to the new name"
    DROPPED = "it says nothing once no job is open"
    BROKER = "it is the broker's, and goes by itself when it is empty"
    EXPIRES = "it ends by itself"


# The fate of each key with a host's name, by function of ``keys``.
HOST_KEYS: Final[dict[str, KeyFate]] = {
    "job":           KeyFate.WITH_JOBS,
    "holds":         KeyFate.WITH_JOBS,  # gone with the end of the job, as the next three
    "wake":          KeyFate.WITH_JOBS,
    "tally":         KeyFate.WITH_JOBS,
    "members":       KeyFate.WITH_JOBS,
    "sizes":         KeyFate.CARRIED,
    "abandoned":     KeyFate.CARRIED,
    "ready":         KeyFate.DROPPED,
    "rung":          KeyFate.DROPPED,
    "bells":         KeyFate.DROPPED,
    "attempts":      KeyFate.DROPPED,
    "fences":        KeyFate.DROPPED,
    "locks":         KeyFate.DROPPED,
    "card":          KeyFate.DROPPED,
    "queue":         KeyFate.BROKER,  # an untaken message rings for nothing
    "host_events":   KeyFate.DROPPED,  # moved to the common stream first
    "host_due":      KeyFate.DROPPED,
    "host_due_wake": KeyFate.DROPPED,
    "reply":         KeyFate.EXPIRES,
    "asked":         KeyFate.EXPIRES,
    "permit":        KeyFate.EXPIRES,
}  # fmt: skip
# The fields of ``keys.hosts`` before a host's name.
JUDGED: Final = ("state", "since", "steps", "copy", "standing", "refused", "refused-at", "speed", "renaming")


@dataclass(frozen=True, slots=True)
class Carried:
    """The amount of data carried to the new name of a host, or forgotten with the host."""

    jobs: int
    backups: int
    volumes: int


class HostNames:
    def __init__(self, client: Client, scripts: Scripts, verbs: Verbs, found: FoundBackups) -> None:
        self._redis, self._scripts, self._verbs, self._found = client, scripts, verbs, found
        self._history, self._named = History(client, scripts, STRICT), Nodes(client, scripts, STRICT)
        self._views = Views(client, internal=True, odd=STRICT)

    # --- records under a name -----------------------------------------------------------------------------------

    def expect_over(self, host: Host) -> None:
        """Raise Refused if the host has an unfinished job, or knows of lost decisions."""
        if self._redis.hexists(keys.restart(), f"lost:{host}"):
            raise Refused(f"host '{host}' knows of decisions that were lost: `blockjobs registry accept-loss` first")
        for txn in self._redis.zrange(keys.unfinished(), 0, -1):
            if self._redis.hexists(keys.txn(TxnId(txn.decode())), f"host:{host}"):
                raise Refused(f"host '{host}' has jobs that are not over, of transaction {txn.decode()}")
        for job in self._jobs(host):
            if job.status != "concluded":
                raise Refused(f"host '{host}' has jobs that are not over: '{job.id}' is {job.status}")
        staged = self._redis.zrange(keys.staged(), 0, -1)
        for run in staged:
            if any(place.host == host for place in self._views.places(RunId(run.decode()))):
                raise Refused(f"host '{host}' has jobs that are not over: run {run.decode()} is being submitted")

    def expect_unused(self, host: Host) -> None:
        """Raise Refused if the registry already has records under a name."""
        kinds = (
            ("jobs on record", any(True for _ in self._places(host))),
            ("backups", bool(self.backups(host))),
            ("decisions to carry out", bool(self._redis.exists(keys.abandoned(host)))),
            ("volumes with a name", bool(self._nodes(host))),
        )
        for what, there in kinds:
            if there:
                raise Refused(f"host '{host}' has {what} of its own: `blockjobs hosts remove {host}` forgets them")

    def backups(self, host: Host) -> list[PublishedTarget]:
        """The targets published on the host and not pruned."""
        return [each for each in self._history.targets(self._views.runs(), STRICT) if each.host == host]

    def _places(self, host: Host) -> Iterator[JobPlace]:
        return (place for place in self._views.all() if place.host == host)

    def _jobs(self, host: Host) -> Iterator[JobView]:
        return self._views.jobs(self._places(host))

    def _nodes(self, host: Host) -> list[Node]:
        return [node for node in self._named.list() if node.volume.host == host]

    # --- renaming ------------------------------------------------------------------------------------------------

    def rename(self, old: Host, new: Host, by: str) -> Carried:
        """Carry the records of a host to another name, and forget the old name.

        Raises:
            Refused: the host has unfinished jobs, or records exist under the new name.
        """
        self.expect_over(old)
        self._merge(old)
        begun = readable_name(self._redis.hget(keys.hosts(), f"renaming:{old}") or b"")
        if begun not in ("", new):
            raise Refused(f"host '{old}' is being renamed to '{begun}': `blockjobs hosts rename {old} {begun}` first")
        if not begun:  # else a call before this one was cut off
            self.expect_unused(new)
            self._redis.hset(keys.hosts(), f"renaming:{old}", new)
        jobs = sum(self._give(job, new) for job in list(self._jobs(old)))
        backups = sum(self._found.rehost(target, new) for target in self.backups(old))
        nodes = self._nodes(old)
        for node in nodes:
            self._redis.hset(keys.nodes(), node.name, record_of(_move_node(node, new)))
        for name in (keys.sizes, keys.abandoned):
            if found := self._redis.hgetall(name(old)):
                self._redis.hset(name(new), mapping=found)
        self._carry_words(old, new)
        self._forget(old, new, by)
        return Carried(jobs, backups, len(nodes))

    def _give(self, job: JobView, new: Host) -> bool:
        spec, place = job_on_host(job.spec, new), under_new_name(job.published_as, job.host, new)
        names = [
            keys.job(job.host, job.id), keys.job(new, job.id), keys.txn(job.transaction), keys.order(job.transaction),
            keys.run_jobs(job.run), keys.ids(),
        ]  # fmt: skip
        args = [
            job.id,
            job.transaction,
            job.host,
            new,
            codec.pack_value(spec.to_dict()),
            spec.source.lock,
            spec.target.lock,
            place,
            pack_history_entry(spec),
        ]
        answer = self._scripts.call("rehost", names, args)
        if answer[0] == b"open":
            raise Refused(f"job '{job.id}' is {answer[1].decode()} now: try again when it is over")
        return bool(answer[0] == b"given")

    def _carry_words(self, old: Host, new: Host) -> None:
        """Carry the user's settings for the host: the limit, and the drains of the host and of its volumes."""
        if speed := self._redis.hget(keys.hosts(), f"speed:{old}"):
            self._redis.hset(keys.hosts(), f"speed:{new}", speed)
        for reason, said in self._redis.hgetall(keys.holding()).items():
            text = reason.decode()
            if text == f"drain:{old}" or text.startswith(f"drain:{old}:"):
                self._redis.hset(keys.holding(), f"drain:{new}{text.removeprefix(f'drain:{old}')}", said)
                self._redis.hdel(keys.holding(), text)

    # --- no name -------------------------------------------------------------------------------------------------

    def remove(self, host: Host, by: str) -> Carried:
        """Forget a host with its recorded jobs and published targets; files on its disks are not touched.

        Raises:
            Refused: the host has unfinished jobs.
        """
        self.expect_over(host)
        self._merge(host)
        jobs, backups, nodes = list(self._jobs(host)), self.backups(host), self._nodes(host)
        for job in jobs:
            self._verbs.dismiss(job.id)
        for target in backups:
            self._history.pruned(target, "forgotten with its host")
        for node in nodes:
            self._redis.hdel(keys.nodes(), node.name)
        for reason in self._redis.hkeys(keys.holding()):
            if reason.decode().startswith(f"drain:{host}:"):
                self._redis.hdel(keys.holding(), reason)
        self._forget(host, "", by)
        return Carried(len(jobs), len(backups), len(nodes))

    def _merge(self, host: Host) -> None:
        """Move the events of the host's workers while the host's jobs are known; the workers write no more events."""
        while self._redis.exists(keys.host_events(host)):
            self._scripts.call("merge", [], [host])

    def _forget(self, host: Host, new: str, by: str) -> None:
        names = [keys.hosts(), keys.holding(), keys.events(), *keys_of(host)]
        match self._scripts.call("host_gone", names, [host, new, by, *JUDGED]):
            case [b"up"]:
                raise Refused(f"host '{host}' is up again: stop its workers")
            case _:
                pass


def keys_of(host: Host) -> list[str]:
    """The keys of a host with its name, carried or dropped."""
    going = (name for name, fate in HOST_KEYS.items() if fate in (KeyFate.CARRIED, KeyFate.DROPPED))
    return [getattr(keys, name)(host) for name in going]


def _move_node(node: Node, new: Host) -> Node:
    options = {**node.options, "host": new} if "host" in node.options else node.options
    return replace(node, volume=replace(node.volume, host=new), options=options)
