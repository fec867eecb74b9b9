"""What is done to a site.  A fault begins, lasts for a while, and is undone; faults of one target follow each other.

Each is a generator: what is in front of its ``yield`` begins it, what is behind undoes it.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import redis
from fleet import children
from sites import DAEMONS, Site

Began = Iterator[None]

HOUR = 3600.0
CLOCKS = (-HOUR, -90.0, 90.0, HOUR, 400 * 24 * HOUR)  # seconds
QUEUES = ("steps", "copy")
EXIT_NO_REDIS = 3  # of a process that finds no server when it starts
EXIT_REFUSED = 70  # of a worker whose name another one has


@dataclass(frozen=True)
class Fault:
    """``kind``: of what it happens to; ``seconds``: how long it lasts, at least and at most; ``weight``: how often."""

    begin: Callable[[Hurt, str], Began]
    kind: str
    seconds: tuple[float, float]
    weight: int = 1

    @property
    def name(self) -> str:
        return self.begin.__name__


@dataclass
class Rollback:
    """An older copy of the registry was brought back."""

    lost: set[str]  # transactions that were decided in between, by the registry that was lost
    unknown: set[str] = field(default_factory=set)  # transactions and runs that the copy does not have at all


@dataclass
class Hurt:
    """A site and what was done to it so far."""

    site: Site
    random: random.Random
    rollbacks: list[Rollback] = field(default_factory=list)
    excuses: dict[str, set[int]] = field(default_factory=dict)  # the exit codes with which a process may end by itself
    messages: dict[str, int] = field(default_factory=dict)  # how many were lost, and how many repeated

    def excuse(self, process: str, *codes: int) -> None:
        self.excuses.setdefault(process, {EXIT_NO_REDIS}).update(codes)

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A connection with short patience: the server may be gone."""
        client = redis.Redis.from_url(self.site.server.url, socket_timeout=3)
        try:
            yield client
        finally:
            client.close()


# --- processes ------------------------------------------------------------------------------------------


def process_killed(hurt: Hurt, name: str) -> Began:
    if hurt.site.processes[name].poll() is None:
        hurt.site.kill(name)
    yield


def child_killed(hurt: Hurt, name: str) -> Began:
    """One process of a worker's pool, or what that has started; a worker may end for it."""
    hurt.excuse(name, *range(-64, 128))
    if family := children(hurt.site.processes[name].pid):
        with suppress(psutil.NoSuchProcess):
            hurt.random.choice(family).kill()
    yield


def process_stopped(hurt: Hurt, name: str) -> Began:
    process = hurt.site.processes[name]
    if process.poll() is None:
        hurt.site.kill(name, signal.SIGSTOP)
    yield
    process.send_signal(signal.SIGCONT)


def second_worker(hurt: Hurt, host: str) -> Began:
    """A second process under a host's name, for one of its queues; one of the two is refused, and ends."""
    name = f"{hurt.random.choice(QUEUES)}@{host}.2"
    hurt.excuse(name, EXIT_NO_REDIS, EXIT_REFUSED)
    hurt.excuse(name.removesuffix(".2"), EXIT_REFUSED)
    hurt.site.start(name)
    yield
    process = hurt.site.processes.pop(name)
    process.kill()
    process.wait()
    hurt.site.down.pop(name, None)


# --- the server -----------------------------------------------------------------------------------------


def server_killed(hurt: Hurt, _: str) -> Began:
    hurt.site.server.kill()
    yield
    hurt.site.server.start()


def server_stopped(hurt: Hurt, _: str) -> Began:
    pid = hurt.site.server.pid
    assert pid
    psutil.Process(pid).suspend()
    yield
    psutil.Process(pid).resume()


def server_full(hurt: Hurt, _: str) -> Began:
    with hurt.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 32_768)
    yield
    with hurt.client() as client:
        client.config_set("maxmemory", 0)


def server_read_only(hurt: Hurt, _: str) -> Began:
    """It has become the replica of a server that is not there."""
    with hurt.client() as client:
        client.replicaof("127.0.0.1", "1")
    yield
    with hurt.client() as client:
        client.replicaof("no", "one")


def server_rolled_back(hurt: Hurt, _: str) -> Began:
    """It goes on with a copy of its data that was made a while ago."""
    server = hurt.site.server
    saved = hurt.site.place / "saved"
    server.save(saved)
    yield
    with hurt.client() as client:
        client.execute_command("CLIENT", "PAUSE", 3000, "WRITE")
        now, runs = decided(client), known_runs(client)
    server.kill()
    server.bring_back(saved)
    server.start()
    with hurt.client() as client:
        known, unknown = decided(client), runs - known_runs(client)
    lost = {txn for txn, number in now.items() if number and not known.get(txn)}
    hurt.rollbacks.append(Rollback(lost, unknown | (set(now) - set(known))))


def decided(client: redis.Redis) -> dict[str, int]:
    """Every transaction that the registry has, and the number of its decision; 0: of none."""
    names = [key for key in client.scan_iter("bj:txn:*", 1000) if client.type(key) == b"hash"]
    return {name.decode().removeprefix("bj:txn:"): int(client.hget(name, "number") or 0) for name in names}


def known_runs(client: redis.Redis) -> set[str]:
    names = (key.decode().split(":") for key in client.scan_iter("bj:run:*", 1000))
    return {name[2] for name in names if len(name) == 3}


# --- messages -------------------------------------------------------------------------------------------


def messages_lost(hurt: Hurt, host: str) -> Began:
    yield from meddling(hurt, host, "lost", lambda *_: None)


def messages_repeated(hurt: Hurt, host: str) -> Began:
    yield from meddling(hurt, host, "repeated", lambda client, queue, message: client.lpush(queue, message, message))


def message_malformed(hurt: Hurt, host: str) -> Began:
    """What a worker with the rights of the host's user can put into its queues."""
    junk = hurt.random.choice((b"no JSON", b"{}", b"[]", b'{"body": 1, "properties": {}}', bytes(range(256))))
    with hurt.client() as client:
        client.lpush(f"bj:celery:{hurt.random.choice(QUEUES)}.{host}", junk)
    yield


def meddling(hurt: Hurt, host: str, what: str, act: Callable[[redis.Redis, str, bytes], object]) -> Began:
    """Take messages of a host before its workers do, and do this with each."""
    over = threading.Event()

    def take_on() -> None:
        with hurt.client() as client:
            while not over.is_set():
                with suppress(redis.RedisError):
                    if taken := client.brpop([f"bj:celery:{queue}.{host}" for queue in QUEUES], timeout=1):
                        queue, message = taken
                        act(client, queue.decode(), message)
                        hurt.messages[what] = hurt.messages.get(what, 0) + 1
                        over.wait(0.2)  # or it takes again what it has just put back

    thread = threading.Thread(target=take_on)
    thread.start()
    yield
    over.set()
    thread.join()


# --- the registry ---------------------------------------------------------------------------------------

# Records that nobody of ours writes: the name of a key, with the host for ``{}``; how; and what.
MALFORMED: tuple[tuple[str, str, tuple[object, ...]], ...] = (
    ("bj:h:{}:events", "XADD", ("*", "event", "JOB_STATUS_CHANGE", "id", "\x00")),
    ("bj:h:{}:events", "XADD", ("*", "odd", "field")),
    ("bj:h:{}:due", "ZADD", (1, "no-such-transaction")),
    ("bj:h:{}:due", "ZADD", ("inf", "\xff")),
    ("bj:h:{}:ready", "ZADD", (1, "no.such.job")),
    ("bj:h:{}:rung", "ZADD", (1, "no.such.job")),
    ("bj:h:{}:bells", "ZADD", (1, "one-word")),
    ("bj:h:{}:attempts", "HSET", ("no.such.job", "odd")),
    ("bj:h:{}:fences", "HSET", ("odd", "no.such.job")),
    ("bj:h:{}:sizes", "HSET", ("odd", "odd")),
    ("bj:h:{}:abandoned", "HSET", ("no-such-transaction", "odd")),
    ("bj:due", "ZADD", (1, "no-such-transaction")),
    ("bj:unfinished", "ZADD", (1, "no-such-transaction")),
    ("bj:launches", "ZADD", (1, "no-such-run")),
    ("bj:retries", "ZADD", (1, "no-such-transaction")),
    ("bj:stopped", "ZADD", (1, "odd")),
    ("bj:deadlines", "ZADD", (1, "no-such-run")),
    ("bj:untold", "ZADD", (1, "no-such-run")),
    ("bj:notices", "ZADD", (1, "odd")),
    ("bj:prunes", "ZADD", (1, "no-such-run")),
    ("bj:runs", "ZADD", (1, "no-such-run")),
    ("bj:staged", "ZADD", (1, "no-such-run")),
    ("bj:reserved", "ZADD", (1, "odd")),
    ("bj:terms", "HSET", ("odd", "odd")),
    ("bj:lifting", "HSET", ("odd", "odd")),
    ("bj:holding", "HSET", ("odd", "odd")),
    ("bj:hosts", "HSET", ("state:odd", "odd")),
    ("bj:arrivals", "SADD", ("\x00",)),
)


def record_malformed(hurt: Hurt, host: str) -> Began:
    name, how, words = hurt.random.choice(MALFORMED)
    with hurt.client() as client:
        client.execute_command(how, name.format(host), *words)
    yield


# --- disks and clocks -----------------------------------------------------------------------------------


def disk_unmounted(hurt: Hurt, host: str) -> Began:
    hurt.site.disks[host].unmount()
    yield
    hurt.site.disks[host].mount()


def disk_frozen(hurt: Hurt, host: str) -> Began:
    hurt.site.disks[host].freeze()
    yield
    hurt.site.disks[host].thaw()


def clock_put(hurt: Hurt, machine: str) -> Began:
    hurt.site.walls[machine].put(hurt.random.choice(CLOCKS))
    yield
    if hurt.random.random() < 0.5:
        hurt.site.walls[machine].put(0)


FAULTS = (
    Fault(process_killed, "process", (0.5, 1.0), weight=8),
    Fault(child_killed, "worker", (0.1, 0.5), weight=4),
    Fault(process_stopped, "process", (1.0, 7.0), weight=5),
    Fault(second_worker, "host", (2.0, 6.0)),
    Fault(server_killed, "server", (0.1, 3.0), weight=2),
    Fault(server_stopped, "server", (0.5, 5.0)),
    Fault(server_full, "server", (1.0, 5.0)),
    Fault(server_read_only, "server", (1.0, 4.0)),
    Fault(server_rolled_back, "server", (1.0, 4.0)),
    Fault(messages_lost, "queue", (1.0, 4.0), weight=3),
    Fault(messages_repeated, "queue", (1.0, 4.0), weight=3),
    Fault(message_malformed, "queue", (0.1, 0.2)),
    Fault(record_malformed, "record", (0.1, 0.2), weight=4),
    Fault(disk_unmounted, "disk", (1.0, 6.0), weight=2),
    Fault(disk_frozen, "disk", (1.0, 6.0), weight=2),
    Fault(clock_put, "clock", (2.0, 8.0), weight=4),
)


def targets(site: Site, kind: str) -> list[str]:
    """What a fault of this kind can happen to."""
    workers = [f"{queue}@{host}" for host in site.hosts for queue in QUEUES]
    hosts = [str(host) for host in site.hosts]
    return {"process": [*DAEMONS, *workers], "worker": workers, "clock": list(site.walls), "server": ["redis"]}.get(
        kind, hosts
    )


class Storm:
    """Faults that come and go; ``blow`` is called again and again."""

    def __init__(self, hurt: Hurt, only: tuple[str, ...] = ()) -> None:
        self.hurt = hurt
        self.log: list[str] = []
        self.counts = {fault.name: 0 for fault in FAULTS if not only or fault.name in only}
        self._faults = [fault for fault in FAULTS if fault.name in self.counts]
        self._under_way: dict[tuple[str, str], tuple[float, Fault, Began]] = {}
        self._began = time.monotonic()
        self._next = 0.0

    def blow(self) -> None:
        """Undo what lasted long enough, and begin something else now and then."""
        now = time.monotonic()
        for place, (until, _, _) in list(self._under_way.items()):
            if now >= until:
                self._end(place)
        if now >= self._next:
            self._next = now + self.hurt.random.uniform(0.2, 1.2)
            self._begin(now)

    def calm(self) -> None:
        """Undo everything, and put the clocks right."""
        for place in list(self._under_way):
            self._end(place)
        for wall in self.hurt.site.walls.values():
            wall.put(0)

    def _begin(self, now: float) -> None:
        # What was least often comes first now and then: a short storm has some of all.
        rarest = min(self._faults, key=lambda fault: self.counts[fault.name])
        chosen = self.hurt.random.choices(self._faults, [fault.weight for fault in self._faults])[0]
        fault = rarest if self.hurt.random.random() < 0.4 else chosen
        target = self.hurt.random.choice(targets(self.hurt.site, fault.kind))
        kind = "process" if fault.kind == "worker" else fault.kind
        if (kind, target) in self._under_way:
            return
        self._say(f"begin {fault.name} {target}")
        began = fault.begin(self.hurt, target)
        if self._step(began):
            self.counts[fault.name] += 1
            self._under_way[kind, target] = (now + self.hurt.random.uniform(*fault.seconds), fault, began)

    def _end(self, place: tuple[str, str]) -> None:
        _, fault, began = self._under_way.pop(place)
        self._say(f"end {fault.name} {place[1]}")
        self._step(began)

    def _step(self, began: Began) -> bool:
        """Go on with a fault; False: the server was gone for it."""
        try:
            next(began, None)
        except (redis.RedisError, OSError) as error:
            self._say(f"not done: {error}")
            return False
        return True

    def _say(self, text: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:6.2f} {text}")
