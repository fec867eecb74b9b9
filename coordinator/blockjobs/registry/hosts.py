"""Hosts: heartbeats, the coordinator's judgement of hosts, and doorbells."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from blockjobs.model.errors import HostDown
from blockjobs.model.hanging import HangingPath, hanging_of, hanging_under
from blockjobs.model.ids import Host, JobId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.liveness import Absence, Word, WorkerName, lone_absence
from blockjobs.registry import codec, keys
from blockjobs.registry.clock import read_steady_ms
from blockjobs.registry.connection import Client, redis_milliseconds
from blockjobs.registry.each import readable_name
from blockjobs.registry.facts import name_unreadable, read_facts
from blockjobs.registry.heartbeats import Heartbeats
from blockjobs.registry.odd import Odd
from blockjobs.registry.scripts import Scripts

log = logging.getLogger(__name__)

FULL: Final = 4 * 10**15  # in a host's line: the scores above are of jobs that first wait for their store
PAGE, FAR = 500, 20_000  # jobs read in one call, and in total, in search of jobs without a hanging path
MOST_ASIDE, LONGEST_ASIDE = 20, 300  # items reported by a daemon, and characters of each error
DAEMON_SILENCE: Final = 5_000  # ms without a loop after which a daemon counts as dead


@dataclass(frozen=True, slots=True)
class HostView:
    """A host: ``state`` and ``since`` (ms) as judged by the coordinator (up, down, left), and the host's own facts."""

    name: Host
    state: str
    since: int
    machine: str
    slots: int
    facts: Mapping[str, Any]
    beat: int
    running: int
    waiting: int
    speed: int = 0  # bytes a second for all copies of the host together, 0: no limit
    unreadable: str = ""  # why the facts cannot be read
    absent: tuple[Absence, ...] = ()  # the absent workers

    @property
    def hanging(self) -> tuple[HangingPath, ...]:
        """The hanging paths on the host."""
        return hanging_of(self.facts)

    @property
    def aside(self) -> Mapping[str, str]:
        """The items put aside by the host: the error of each item, by name."""
        return {str(item): str(error) for item, error in self.facts.get("aside", {}).items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "state": self.state, "since": self.since / 1000, "slots": self.slots,
            "running": self.running, "waiting": self.waiting, "speed": self.speed, "facts": dict(self.facts),
            "hanging": [each.to_dict() for each in self.hanging],
            "absent": [{"worker": each.worker, "word": each.word, "since": each.since / 1000} for each in self.absent],
        }  # fmt: skip


class Judged(NamedTuple):
    """The coordinator's judgement of a host: up, down or left since ``since`` (ms), and the absent workers."""

    state: str
    since: int
    absent: tuple[Absence, ...] = ()

    def lacks(self, worker: WorkerName) -> bool:
        """Whether a worker is absent; after a judgement by an earlier version both are, unless the host is up."""
        if not self.absent:
            return self.state != "up"
        return any(absence.worker is worker for absence in self.absent)


class Lease(NamedTuple):
    """A live claim.  ``beat``: the counter of checkpoints.  ``vacated``: the place in the store was given back."""

    attempt: str
    beat: int
    store: str
    vacated: bool


class Hosts(Heartbeats):
    def __init__(self, client: Client, scripts: Scripts, odd: Odd | None = None) -> None:
        super().__init__(client, scripts)
        self._odd = odd or Odd()

    def judge(self, host: Host, state: str, words: Mapping[WorkerName, Word] | None = None) -> bool:
        """Record the judgement of a host and its workers (None: the same state); True if the host's state changed."""
        each = [state if words is None else words[worker] for worker in WorkerName]
        return bool(self._scripts.call("judge", [keys.hosts(), keys.events()], [host, state, *each])[0] == b"changed")

    def list_arrivals(self) -> list[Host]:
        """Hosts registered since the coordinator's last check; names without a card are dropped from the set."""
        names = self._redis.srandmember(keys.arrivals(), PAGE)
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.exists(keys.card(Host(readable_name(name))))
        here = [name for name, there in zip(names, pipe.execute() if names else [], strict=True) if there]
        if odd := {*names} - {*here}:
            self._redis.srem(keys.arrivals(), *odd)
        return [Host(name.decode()) for name in here]

    def drop_arrivals(self, hosts: Iterable[Host]) -> None:
        """Drop hosts from the arrivals after a check."""
        self._redis.srem(keys.arrivals(), *hosts)

    def known(self) -> dict[Host, Judged]:
        """Every host known to the coordinator."""
        record = {
            readable_name(name): readable_name(value) for name, value in self._redis.hgetall(keys.hosts()).items()
        }
        return {
            Host(name[6:]): Judged(state, int(record.get("since:" + name[6:], "0")), _absent_workers(record, name[6:]))
            for name, state in sorted(record.items())
            if name.startswith("state:")
        }

    def list_refused(self, hosts: Sequence[Host]) -> dict[Host, tuple[int, int]]:
        """The count of refused events and the time of the last one (ms), for hosts with refused events."""
        names = [f"{what}:{host}" for host in hosts for what in ("refused", "refused-at")]
        found = self._redis.hmget(keys.hosts(), names) if names else []
        return {
            host: (int(count), int(at or 0))
            for host, count, at in zip(hosts, found[::2], found[1::2], strict=True)
            if count
        }

    def views(self) -> list[HostView]:
        known = self.known()
        pipe = self._redis.pipeline(transaction=False)
        pipe.hmget(keys.hosts(), [f"speed:{host}" for host in known] or ["-"])
        for host in known:
            pipe.hmget(keys.card(host), "machine", "slots", "facts", "beat")
            pipe.hlen(keys.attempts(host))
            pipe.zcard(keys.ready(host))
        speeds, *rows = pipe.execute()
        return [
            HostView(
                host,
                judged.state,
                judged.since,
                **_parse_host_card(host, card),
                absent=judged.absent,
                running=running,
                waiting=waiting,
                speed=self._odd.read(f"limit of host {host}", partial(int, speed or 0)) or 0,
            )
            for (host, judged), card, running, waiting, speed in zip(
                known.items(), rows[::3], rows[1::3], rows[2::3], speeds[: len(known)], strict=True
            )
        ]

    def leases(self, hosts: list[Host], busy: Iterable[Host] = ()) -> dict[tuple[Host, JobId], Lease]:
        """Every live claim.  ``busy``: the hosts with claims so far; one call checks the other hosts for new claims."""
        quiet = {*hosts} - {*busy}
        asked = hosts if self._any(map(keys.attempts, quiet)) else [host for host in hosts if host not in quiet]
        if not asked:
            return {}
        pipe = self._redis.pipeline(transaction=False)
        for host in asked:
            pipe.hkeys(keys.attempts(host))
        claims = [(h, JobId(j.decode())) for h, jobs in zip(asked, pipe.execute(), strict=True) for j in jobs]
        for host, job in claims:
            pipe.hmget(keys.job(host, job), "attempt", "beat", "store", "vacated")
        return {
            claim: Lease((attempt or b"").decode(), int(beat or 0), (store or b"").decode(), vacated is not None)
            for claim, (attempt, beat, store, vacated) in zip(claims, pipe.execute() if claims else [], strict=True)
        }

    def _any(self, names: Iterable[str]) -> bool:
        """Whether any of these keys exists: one call for an idle fleet, instead of a call per host."""
        found = [*names]
        return bool(found) and bool(self._redis.exists(*found))

    def fence(self, host: Host, job: JobId, attempt: str) -> bool:
        """Order the host's watcher to end an attempt; False: the attempt does not hold the job any more."""
        names = [keys.job(host, job), keys.fences(host)]
        return bool(self._scripts.call("fence", names, [job, attempt])[0] == b"ordered")

    def waiting(self, hosts: Iterable[Host]) -> list[Host]:
        """The hosts with a job that waits only for a slot."""
        asked = list(hosts)
        if not self._any(map(keys.ready, asked)):
            return []
        pipe = self._redis.pipeline(transaction=False)
        for host in asked:
            pipe.zcount(keys.ready(host), "-inf", f"({FULL}")
        return [host for host, jobs in zip(asked, pipe.execute(), strict=True) if jobs]

    def ring(
        self,
        host: Host,
        slots: int,
        *,
        lost_after_ms: int,
        limit: Callable[[Host, str], int] = lambda _host, _store: 0,
        hanging: Sequence[HangingPath] = (),
    ) -> list[JobId]:
        """Choose the jobs to ring for now; at most ``slots`` + 2 doorbells are outstanding.

        ``limit``: the first limit of a copy from a host to a store ("": to none), until the next division of budgets;
        0: unchanged.  ``hanging``: the hanging paths on the host; a job on a hanging file system waits until the hang
        ends.
        """
        most = slots + 2
        # The jobs already rung for may come first in the line.
        jobs = self._waiting(host, 2 * most + 1, hanging)
        pipe = self._redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hget(keys.job(host, JobId(job.decode())), "store")
        names = [
            keys.ready(host), keys.rung(host), keys.attempts(host), keys.holding(), keys.queue(host, WorkerName.COPY)
        ]  # fmt: skip
        args: list[Any] = [most, slots, lost_after_ms, host]
        for job, found in zip(jobs, pipe.execute() if jobs else [], strict=True):
            store = (found or b"").decode()
            at_first = limit(host, store)
            names += [keys.job(host, JobId(job.decode())), keys.store(store), keys.places(store), keys.crowd(store)]
            args += [job, store, at_first or ""]
        return [JobId(job.decode()) for job in self._scripts.call("ring", names, args)[1:]]

    def _waiting(self, host: Host, most: int, hanging: Sequence[HangingPath]) -> list[bytes]:
        """The jobs waiting for a slot, the longest wait first, without jobs that would hang."""
        found: list[bytes] = []
        for start in range(0, FAR if hanging else 1, PAGE):
            page = self._redis.zrangebyscore(
                keys.ready(host), "-inf", f"({FULL}", start=start, num=PAGE if hanging else most
            )
            found += self._sound(host, page, hanging) if hanging else page
            if len(found) >= most or len(page) < PAGE:
                break
        return found[:most]

    def _sound(self, host: Host, jobs: Sequence[bytes], hanging: Sequence[HangingPath]) -> list[bytes]:
        """The jobs without a hanging path."""
        pipe = self._redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hget(keys.job(host, JobId(job.decode())), "spec")
        specs = zip(jobs, pipe.execute() if jobs else [], strict=True)
        return [job for job, spec in specs if spec and not _would_hang(spec, hanging)]

    def incarnate(self) -> str:
        """The registry's incarnation: drawn at the first use, constant afterwards."""
        while (found := self._redis.get(keys.incarnation())) is None:
            self._redis.set(keys.incarnation(), uuid.uuid4().hex, nx=True)
        return str(found.decode())

    def daemon_beat(self, name: str, seq: str = "", aside: Mapping[str, str] | None = None) -> None:
        """Record a daemon's loop, its position in the event stream, and the items put aside."""
        self._scripts.call("alive", [keys.daemons()], [name, seq, codec.pack_value(bounded_aside(aside or {}))])

    def daemon_aside(self, name: str) -> dict[str, str]:
        """The items put aside by a daemon: the error of each item, by name."""
        packed = self._redis.hget(keys.daemons(), f"aside:{name}")
        found: dict[str, str] = codec.unpack_value(packed) if packed else {}
        return found

    def daemon_seq(self, name: str) -> str:
        """The position of a daemon in the event stream; "0" for a new daemon."""
        return (self._redis.hget(keys.daemons(), f"seq:{name}") or b"0").decode()

    def daemons(self) -> dict[str, bool]:
        """Whether each daemon is alive, by name."""
        now = read_steady_ms(self._redis)
        found = self._redis.hgetall(keys.daemons())
        return {name: now - int(found.get(name.encode(), 0)) < DAEMON_SILENCE for name in ("coordinator", "finalizer")}

    def now(self) -> int:
        """Redis' clock in ms."""
        return redis_milliseconds(self._redis.time())

    def run_id(self) -> str:
        """Redis' run id; a new run id means that Redis was restarted."""
        return str(self._redis.info("server")["run_id"])


def _parse_host_card(host: Host, card: Sequence[bytes | None]) -> dict[str, Any]:
    """A host's card for its view; a host with an unreadable card counts as silent."""
    machine, slots, facts, beat = card
    read, unreadable = read_facts(host, facts)
    told = {"machine": "", "slots": 0, "beat": 0, "facts": read, "unreadable": unreadable}
    try:
        return told | {"machine": (machine or b"").decode(), "slots": int(slots or 0), "beat": int(beat or 0)}
    except ValueError as error:
        return told | {"unreadable": name_unreadable(host, error)}


def _would_hang(spec: bytes, hanging: Sequence[HangingPath]) -> bool:
    """Whether a job touches a hanging path; an unreadable job does not count, as its claim reports the error."""
    try:
        return hanging_under(hanging, JobSpec.from_dict(codec.unpack_value(spec))) is not None
    except Exception as error:  # it is this job's own
        log.error("a job that waits for a slot cannot be read: %s: %s", type(error).__name__, error)
        return False


def bounded_aside(aside: Mapping[str, str]) -> dict[str, str]:
    """The first items, with the beginnings of their texts."""
    return {name[:LONGEST_ASIDE]: text[:LONGEST_ASIDE] for name, text in [*aside.items()][:MOST_ASIDE]}


def _absent_workers(record: Mapping[str, str], host: str) -> tuple[Absence, ...]:
    """The absent workers of a host, as judged."""
    found = []
    for worker in WorkerName:
        word, _, since = record.get(f"{worker}:{host}", "").partition(" ")
        if word in (Word.DOWN, Word.LEFT):
            found.append(Absence(worker, Word(word), int(since) if since.isdigit() else 0))
    return tuple(found)


def check_host(host: Host, known: Judged | None) -> None:
    """Refuse a host that cannot take a job now.

    Raises:
        HostDown: with the reason and the time.
    """
    if known is None:
        raise HostDown(host, "is not known: no worker has registered under this name")
    if known.state != "up":
        at = datetime.fromtimestamp(known.since / 1000).astimezone()
        word = "has left: its workers were stopped at" if known.state == "left" else f"is {known.state} since"
        missing = lone_absence(known.absent)
        raise HostDown(host, f"{word} {at:%Y-%m-%d %H:%M:%S}{': ' * bool(missing)}{missing}")
