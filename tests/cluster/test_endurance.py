"""Small runs, one after the other, for an hour (five minutes without ``--long``): nothing of the fleet grows.

Memory, descriptors and threads of every process, keys and memory of Redis, and what lies on the disks.  Runs and events
are kept for seconds here, so that there is a steady state; at the end all is forgotten, and the names of all keys are
those of the beginning, but for those in ``KEPT``.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from statistics import median
from typing import Final

import psutil
import pytest
from fleet import DEADLINE, MIB, Fleet, files
from growth import Held, Series, children, grows, growth, held
from receiver import Receiver
from talk import Monitor

from blockjobs.cli import run as cli_run
from blockjobs.cli import runfile
from blockjobs.cli.gather import gather
from blockjobs.client import Coordinator
from blockjobs.model.errors import NoSuchJob
from blockjobs.model.ids import RunId
from blockjobs.spawn import spawn
from blockjobs.store import keys
from blockjobs.store.events import Event
from blockjobs.stream import Stream
from blockworker.host import load
from blockworker.roots import Roots
from blockworker.targets.journal import sweep_tombstones

LANES: Final = 3
LIFE: Final = 9  # samples of a child, three for each third
EVERY: Final = 2.0  # seconds between two samples
SEED: Final = "seed.img"
PACE: Final = 0.6  # seconds
KEEP: Final = 30.0  # seconds that runs and events are kept
DAY: Final = 24 * 3600.0
HOSTS: Final = ("a", "b")

# What is there at the end and was not at the beginning.
KEPT: Final = {
    "bj:celery:_kombu.*": "which worker takes from which queue",
    "bj:decisions": "the number of the last decision, without which a host would not know a registry that lost some",
    "bj:stores": "the stores that run files have named:",
    "bj:store:nas": "one of them",
    "bj:runs": "the runs of which a rule keeps a backup, two of each name, and they themselves:",
    "bj:run:RUN": "their figures,",
    "bj:run:RUN:targets": "where their targets are,",
    "bj:run:RUN:notices": "and who was told",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What may grow from the first to the last third of what is measured; that of a leak has no end."""

    process: float  # MiB of any process
    steps: float  # MiB of a steps worker: its threads fill their arenas for the first thousand runs
    children: float  # MiB of all children of a copy worker: each is young or old, and there are two
    redis: float  # MiB of Redis' memory without the stream of events
    keys: float  # part of the number of keys: runs are forgotten in batches
    odd: int = 6  # descriptors, threads: more or fewer at any moment, as each step has a connection of its own
    odds: int = 12  # of all children together, and so of those that they are connected to


SHORT: Final = Limits(process=3.0, steps=6.0, children=12.0, redis=1.0, keys=0.2)
LONG: Final = Limits(process=4.0, steps=4.0, children=12.0, redis=1.0, keys=0.05)


# --- what is run ----------------------------------------------------------------------------------------


class Lane:
    """Runs stories, one after the other; each is a run file or two."""

    def __init__(self, fleet: Fleet, number: int, receiver: str) -> None:
        self.fleet, self.number, self.receiver = fleet, number, receiver
        self.done: Counter[str] = Counter()
        self.told = 0
        self.last_kept: list[RunId] = []
        self.here = Coordinator(fleet.server.url)
        self.file = fleet.place / f"lane{number}.yaml"
        self._numbers = count()

    def close(self) -> None:
        self.here.close()

    def stories(self) -> list[Callable[[], None]]:
        every = [
            self.grouped, self.individual, self.failing_member, self.tried_again, self.cancelled, self.paused,
            self.mirrored, self.cut, self.stored, self.queued, self.late, self.stopped, self.restored, self.globbed,
            self.kept,
        ]  # fmt: skip
        own = [[self.killed], [self.by_qmp], [self.dismissed, self.manual]][self.number % 3]
        turn = self.number * 5 % len(every)
        return [*every[turn:], *every[:turn], *own]

    def run(self, over: threading.Event) -> None:
        """One story after the other until it is over, at most one in ``PACE`` seconds: others want the machine, too."""
        for story in cycle(self.stories()):
            began = time.monotonic()
            story()
            self.done[story.__name__] += 1
            if over.wait(max(0.0, began + PACE - time.monotonic())):
                return

    # --- their words --------------------------------------------------------------------------------------

    def submit(self, name: str, body: str, top: str = "") -> RunId:
        """Start a run file as ``run`` does."""
        for host in HOSTS:
            self.out(host, name).mkdir(parents=True, exist_ok=True)
        self.file.write_text(f"version: 1\nname: {name}-{self.number}\n{top}\n{body}\n")
        read, known = cli_run.read_whole(self.file, (), ()), runfile.Fleet()

        def ask() -> None:
            nonlocal known
            known = gather(self.here, read, lambda _: None)

        self.listen(Stream(self.here.registry, self.here.registry.events.last()))
        return cli_run.submit(self.here, lambda now: read.plan(now, known), ask).run

    def out(self, host: str, name: str) -> Path:
        return self.fleet.root(host) / "out" / f"{name}-{self.number}"

    def job(self, name: str, id_: str, host: str, more: str = "", source: str = "disk.img") -> str:
        """A line of a run file."""
        root = self.fleet.root(host)
        target = f"{self.out(host, name)}/{{run}}/{id_}.img"
        return f'  - {{id: {id_}, source: "{host}:{root}/{source}", target: "{host}:{target}", {more}}}'

    def jobs(self, *lines: str) -> str:
        return "\n".join(["jobs:", *lines])

    def transaction(self, words: str, *lines: str) -> str:
        """One with words of its own."""
        jobs = ", ".join(line.removeprefix("  - ") for line in lines)
        return f"transactions:\n  - {{name: all, {words}, jobs: [{jobs}]}}"

    def until(self, name: str, id_: str, status: str = "") -> Event:
        """The next such event."""
        give_up = time.monotonic() + DEADLINE
        while time.monotonic() < give_up:
            while self._page:
                event = self._page.pop(0)
                if (event.name, event.id) == (name, id_) and status in ("", event.fields.get("status")):
                    return event
            self._page = self.stream.take(0.5)
        raise AssertionError(f"no {name} {id_} {status}\n{self.fleet.tails()}")

    def listen(self, stream: Stream) -> None:
        """Wait for events of this stream from here on."""
        self.stream = stream
        self._page: list[Event] = []

    def ended(self, run: RunId, *, failed: int = 0, cancelled: int = 0) -> None:
        """It has ended, and so."""
        event = self.until("RUN_ENDED", run)
        found = int(event.fields["failed"]), int(event.fields["cancelled"])
        assert found == (failed, cancelled), f"{run}: {event.fields}\n{self.fleet.tails()}"

    def clear(self, name: str, run: RunId) -> None:
        """Its targets are the user's, who removes them."""
        for host in HOSTS:
            shutil.rmtree(self.out(host, name) / run, ignore_errors=True)

    def nothing(self, name: str, run: RunId) -> None:
        """Nothing of it is left."""
        assert not [host for host in HOSTS if (self.out(host, name) / run).exists()], run

    # --- the stories --------------------------------------------------------------------------------------

    def grouped(self) -> None:
        run = self.submit("grouped", self.jobs(self.job("grouped", "one", "a"), self.job("grouped", "two", "b")),
                          f"notify: {{success: ['{self.receiver}']}}")  # fmt: skip
        self.ended(run)
        self.told += 1
        self.clear("grouped", run)

    def individual(self) -> None:
        lines = [self.job("single", "one", "a", "auto-dismiss: true"), self.job("single", "two", "b"),
                 self.job("single", "away", "b", source="nobody.img")]  # fmt: skip
        run = self.submit("single", self.jobs(*lines), "completion-mode: individual")
        self.ended(run, failed=1)
        self.clear("single", run)

    def failing_member(self) -> None:
        lines = [self.job("fails", "one", "a"), self.job("fails", "away", "b", source="nobody.img")]
        run = self.submit("fails", self.jobs(*lines), f"notify: {{failure: ['{self.receiver}']}}")
        self.ended(run, failed=1, cancelled=1)
        self.told += 1
        self.nothing("fails", run)

    def tried_again(self) -> None:
        lines = [self.job("again", "one", "a"), self.job("again", "away", "b", source="nobody.img")]
        words = "completion-mode: individual, retry: 1, retry-wait: 1s"
        run = self.submit("again", self.transaction(words, *lines))
        self.ended(run, failed=1)
        self.clear("again", run)

    def cancelled(self) -> None:
        slow = "speed: 64KiB"
        run = self.submit(
            "cancel", self.jobs(self.job("cancel", "one", "a", slow), self.job("cancel", "two", "b", slow))
        )
        self.until("ATTEMPT_CLAIMED", f"{run}.one")
        self.here.cancel(f"{run}.one")
        self.ended(run, cancelled=2)
        self.nothing("cancel", run)

    def paused(self) -> None:
        run = self.submit("pause", self.jobs(self.job("pause", "one", "a", "speed: 256KiB")))
        job = f"{run}.one"
        self.until("ATTEMPT_CLAIMED", job)
        self.here.pause(job, owner="endurance", cause="a rest", seconds=600)
        self.until("JOB_STATUS_CHANGE", job, "paused")
        self.here.set_speed(job, 0)
        self.here.resume(job)
        self.ended(run)
        self.clear("pause", run)

    def mirrored(self) -> None:
        run = self.submit("mirror", self.jobs(self.job("mirror", "one", "a", "type: mirror")))
        self.until("BLOCK_JOB_READY", f"{run}.one")
        self.here.complete(f"{run}.one")
        self.ended(run)
        self.clear("mirror", run)

    def cut(self) -> None:
        snap = "snapshot: 'command:snap'"
        run = self.submit("cut", self.jobs(self.job("cut", "one", "a", snap), self.job("cut", "two", "b", snap)))
        self.ended(run)
        self.clear("cut", run)

    def stored(self) -> None:
        lines = [self.job("stored", f"{host}{n}", host) for host in HOSTS for n in range(2)]
        stores = f"stores: {{nas: {{path: {self.fleet.place}, jobs: 1, speed: 64MiB/s}}}}"
        run = self.submit("stored", self.transaction("completion-mode: individual, store: nas", *lines), stores)
        self.ended(run)
        self.clear("stored", run)

    def queued(self) -> None:
        body = self.jobs(self.job("queue", "one", "b"))
        runs = [self.submit("queue", body, "on-overlap: queue")]
        stream = self.stream
        runs.append(self.submit("queue", body, "on-overlap: queue"))
        self.listen(stream)
        for run in runs:
            self.ended(run)
            self.clear("queue", run)

    def late(self) -> None:
        run = self.submit("late", self.jobs(self.job("late", "one", "b")), "deadline: 6h")
        self.ended(run)
        self.clear("late", run)

    def stopped(self) -> None:
        image = f"{{driver: file, filename: {self.fleet.root('a')}/disk.img}}"
        bad = f"{{driver: blkdebug, host: a, image: {image}, inject-error: [{{iotype: read, once: true}}]}}"
        target = f"a:{self.out('a', 'stop')}/{{run}}/one.img"
        line = f'  - {{id: one, source: {bad}, target: "{target}", on-source-error: stop}}'
        run = self.submit("stop", self.jobs(line), "hold-timeout: 30m")
        self.until("JOB_STATUS_CHANGE", f"{run}.one", "paused")
        self.here.resume(f"{run}.one")
        self.ended(run)
        self.clear("stop", run)

    def restored(self) -> None:
        root = self.fleet.root("a")
        line = self.job("restore", "one", "a", "type: restore", source=SEED)
        run = self.submit("restore", self.jobs(line))
        self.ended(run)
        assert (self.out("a", "restore") / run / "one.img").read_bytes() == (root / "disk.img").read_bytes()
        self.clear("restore", run)

    def globbed(self) -> None:
        """The hosts are asked what the pattern means."""
        body = "\n".join(
            f"""  - {{name: of-{host}, hosts: {host}, target: "{self.out(host, "glob")}/{{run}}/{{name}}.img", """
            f"""sources: ["{self.fleet.root(host)}/dis*.img"]}}"""
            for host in HOSTS
        )
        run = self.submit("glob", f"transactions:\n{body}")
        self.ended(run)
        self.clear("glob", run)

    def kept(self) -> None:
        """The coordinator prunes."""
        body = self.transaction("keep: {last: 2}", self.job("kept", "one", "a"), self.job("kept", "two", "b"))
        run = self.submit("kept", body, f"notify: {{success: ['{self.receiver}']}}")
        self.ended(run)
        self.told += 1
        self.last_kept = [*self.last_kept, run][-2:]

    def dismissed(self) -> None:
        run = self.submit("dismiss", self.jobs(self.job("dismiss", "one", "a"), self.job("dismiss", "two", "b")))
        self.ended(run)
        for name in ("one", "two"):
            with suppress(NoSuchJob):  # forgotten with its run
                self.here.dismiss(f"{run}.{name}")
        self.clear("dismiss", run)

    def manual(self) -> None:
        run = self.submit("manual", self.jobs(self.job("manual", "one", "a", "auto-finalize: false")))
        self.until("JOB_STATUS_CHANGE", f"{run}.one", "pending")
        self.here.finalize(f"{run}.one")
        self.ended(run)
        self.clear("manual", run)

    def killed(self) -> None:
        """The writer dies, and the job goes on in another process."""
        run = self.submit("killed", self.jobs(self.job("killed", "one", "a", "speed: 256KiB")))
        job = f"{run}.one"
        self.until("ATTEMPT_CLAIMED", job)
        os.kill(self.fleet.writer("a", job), signal.SIGKILL)
        self.until("ATTEMPT_RELEASED", job)
        self.here.set_speed(job, 0)
        self.ended(run)
        self.clear("killed", run)

    def by_qmp(self) -> None:
        """A client comes, copies, and goes."""
        root, job = self.fleet.root("a"), f"q{next(self._numbers)}"
        source, target = root / "qmp.img", root / f"{job}.img"  # its own: nobody else may read a node that is removed
        target.write_bytes(bytes(MIB))
        assert self.fleet.qmp is not None
        with Monitor(self.fleet.qmp) as monitor:
            for node, path in (("from", source), ("to", target)):
                monitor.ok("blockdev-add", driver="file", node_name=node, filename=str(path), host="a")
            monitor.backup(job, "from", "to")
            monitor.until_status(job, "null")
            for node in ("from", "to"):
                monitor.ok("blockdev-del", node_name=node)
        assert target.read_bytes() == source.read_bytes()
        for path in root.glob(f"{job}.img*"):
            path.unlink()


# --- what is measured -----------------------------------------------------------------------------------


class Watch:
    """Samples of everything, by (who, what)."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.series: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        self.lives: dict[int, list[tuple[float, float]]] = defaultdict(list)  # descriptors of each child, by pid

    def who(self) -> Iterator[tuple[str, list[psutil.Process]]]:
        for name, process in self.fleet.processes.items():
            yield name, [psutil.Process(process.pid)]
            if name.startswith("copy"):
                yield f"{name}, children", children(process.pid)
        assert self.fleet.server.pid is not None
        yield "redis", [psutil.Process(self.fleet.server.pid)]

    def held(self) -> dict[str, Held]:
        return {name: held(processes) for name, processes in self.who()}

    def sample(self) -> None:
        at = time.monotonic()
        for name, each in self.held().items():
            for what, value in (("MiB", each.uss / MIB), ("fds", each.fds), ("threads", each.threads)):
                self.series[name, what].append((at, value))
        for what, value in self.redis().items():
            self.series["redis", what].append((at, value))
        for host in HOSTS:
            for child in children(self.fleet.processes[f"copy@{host}"].pid):
                if (alone := held([child])).processes:
                    self.lives[child.pid].append((at, alone.fds))

    def redis(self) -> dict[str, float]:
        """The stream of events is as long as events are kept: its memory is told apart."""
        client = self.fleet.client
        info = client.info()
        stream = client.memory_usage(keys.events(), samples=0) or 0
        return {
            "keys": client.dbsize(), "used MiB": (info["used_memory"] - stream) / MIB, "stream MiB": stream / MIB,
            "clients": info["connected_clients"], "events": client.xlen(keys.events()),
            "runs kept": client.zcard(keys.runs()),
        }  # fmt: skip

    def since(self, began: float) -> dict[tuple[str, str], Series]:
        return {key: [row for row in rows if row[0] >= began] for key, rows in self.series.items()}

    def more_in_a_life(self) -> float:
        """How many descriptors a child has more at the end of its life than at its beginning; the median of all."""
        lives = [growth(life) for life in self.lives.values() if len(life) >= LIFE]
        assert len(lives) >= len(HOSTS), "no child was seen for long enough"
        return median(life.end - life.start for life in lives)


def grown(measured: dict[tuple[str, str], Series], limits: Limits) -> list[str]:
    """What grew by more than it may."""
    bad = []
    for (who, what), series in measured.items():
        family = who.endswith("children")
        alone = limits.steps if who.startswith("steps") else limits.process
        match what:
            case "MiB":
                most = limits.children if family else alone
            case "fds" | "threads" | "clients":
                most = limits.odds if family or who == "redis" else limits.odd
            case "used MiB":
                most = limits.redis
            case "keys":
                most = limits.keys * growth(series).start
            case _:  # the stream, and the runs that are kept, are as long as there was much to do lately
                continue
        if grows(series, most):
            found = growth(series)
            bad.append(f"{who}: {what} grew from {found.start:.1f} to {found.end:.1f}: more than {most:.1f}")
    return bad


def table(measured: dict[tuple[str, str], Series]) -> str:
    lines = [f"{'':24}{'':12}{'first third':>12}{'last third':>12}{'an hour':>10}"]
    for (who, what), series in sorted(measured.items()):
        found = growth(series)
        lines.append(f"{who:24}{what:12}{found.start:12.1f}{found.end:12.1f}{found.per_hour:+10.1f}")
    return "\n".join(lines)


# --- the campaign ---------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet that forgets soon, with QMP and a follower of its events."""
    place = tmp_path_factory.mktemp("endurance")
    snap = place / "snap"
    snap.write_text('#!/bin/sh\ncut="${2%/*}/.snapshot.$3"\ncase $1 in\n'
                    'create) cp "$2" "$cut"; echo "$cut" ;;\nremove) rm -f "$cut" ;;\nesac\n')  # fmt: skip
    snap.chmod(0o700)
    env = {"BLOCKJOBS_KEEP_RUNS_DAYS": f"{KEEP / DAY:.9f}", "BLOCKJOBS_KEEP_EVENTS_DAYS": f"{KEEP / DAY:.9f}"}
    fleet = Fleet(place, HOSTS, qmp=True, allow_overwrite=True, env=env, commands={"snap": (str(snap),)})
    for host in HOSTS:
        fleet.image(host, "disk.img", 1)
        fleet.image(host, "qmp.img", 1)
    fleet.processes["events"] = spawn(
        [sys.executable, "-m", "blockjobs", "events", "--follow", "--since", "now"], log=Path(os.devnull),
        env=os.environ | {"BLOCKJOBS_REDIS_URL": fleet.server.url},
    )  # fmt: skip
    yield fleet
    fleet.close()


def names(fleet: Fleet) -> set[str]:
    """Of all keys; those of one run, and those of Celery, as one."""
    found = {name.decode() for name in fleet.client.scan_iter(count=1000)}
    return {re.sub(r"_kombu.*", "_kombu.*", re.sub(r"[\w.-]+-\d{8}T\d{6}Z", "RUN", name)) for name in found}


def sizes(fleet: Fleet) -> dict[str, int]:
    """How much is in the keys that are always there."""
    size = {b"hash": fleet.client.hlen, b"set": fleet.client.scard, b"list": fleet.client.llen,
            b"zset": fleet.client.zcard, b"string": fleet.client.exists, b"stream": fleet.client.exists}  # fmt: skip
    wanted = [
        *fleet.client.scan_iter("bj:h:*:card"),
        *fleet.client.scan_iter("bj:celery:_kombu*"),
        "bj:hosts",
        "bj:daemons",
    ]
    return {str(name): size[fleet.client.type(name)](name) for name in wanted}


def forgotten(fleet: Fleet) -> None:
    """Wait until the coordinator has forgotten all runs but those of which a rule keeps something."""
    give_up = time.monotonic() + DEADLINE
    while fleet.client.zcard(keys.runs()) > 2 * LANES or fleet.registry.history.due():
        assert time.monotonic() < give_up, f"{fleet.registry.views.runs()}\n{fleet.tails()}"
        fleet.client.blpop(["test:nobody-pushes-here"], timeout=0.5)


def seed(fleet: Fleet) -> None:
    """An image to restore again and again."""
    root = fleet.root("a")
    run = fleet.submit(fleet.plan([{"id": "one", "source": f"a:{root}/disk.img", "target": f"a:{root}/{SEED}"}]))
    fleet.until("RUN_ENDED", run)


def swept(fleet: Fleet, host: str) -> tuple[int, set[str]]:
    """A host's tombstones, which it keeps for a week, are swept; how many, and what lies beside them then."""
    config = load(fleet.place / f"{host}.toml")
    roots = Roots(config)
    root = roots.root_of(str(fleet.root(host)), write=True)
    number = sweep_tombstones(roots, root, 0.0, now=time.time() + 1)
    return number, set(os.listdir(fleet.root(host) / ".blockjobs"))


def expected(lanes: Sequence[Lane], host: str) -> set[str]:
    """What lies on a host when all is over: the two backups of each name that a rule keeps, and empty directories."""
    found = {"out"} | ({SEED, f"{SEED}.blake3", f"{SEED}.manifest.json"} if host == "a" else set())
    for lane in lanes:
        places = [
            place for place in (lane.fleet.root(host) / "out").iterdir() if place.name.endswith(f"-{lane.number}")
        ]
        found |= {f"out/{place.name}" for place in places}
        for run in lane.last_kept:
            image = f"out/kept-{lane.number}/{run}/{'one' if host == 'a' else 'two'}.img"
            found |= {os.path.dirname(image), image, f"{image}.blake3", f"{image}.manifest.json"}
    return found


def work(lanes: Sequence[Lane], watch: Watch, seconds: float) -> None:
    """Let all lanes run their stories, and look on."""
    over, failures, began = threading.Event(), queue.SimpleQueue[BaseException](), time.monotonic()

    def follow(lane: Lane) -> None:
        try:
            lane.run(over)
        except BaseException as failure:
            failures.put(failure)
            over.set()

    threads = [threading.Thread(target=follow, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    while time.monotonic() - began < seconds and not over.wait(EVERY):
        watch.sample()
    over.set()
    for thread in threads:
        thread.join()
    if not failures.empty():
        raise failures.get()


@pytest.mark.endurance
@pytest.mark.timeout(900)
def test_nothing_grows_with_the_number_of_runs(site: Fleet, long: bool) -> None:
    seconds, warm, limits = (3600.0, 600.0, LONG) if long else (225.0, 75.0, SHORT)
    before, disks = names(site), {host: files(site.root(host)) for host in HOSTS}
    seed(site)
    watch, began, early = Watch(site), time.monotonic(), sizes(site)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        lanes = [stack.enter_context(closing(Lane(site, number, receiver.url))) for number in range(LANES)]
        work(lanes, watch, seconds)
        for _ in range(sum(lane.told for lane in lanes)):  # each run's end was told, as far as it was to be
            receiver.got.get(timeout=DEADLINE)
        forgotten(site)
        assert receiver.got.empty()
    measured = {key: [row for row in rows if row[0] >= began + warm] for key, rows in watch.series.items()}
    done = sum((lane.done for lane in lanes), Counter())
    tombs = {host: swept(site, host) for host in HOSTS}
    logs = sum(log.stat().st_size for log in (site.place / "logs").glob("*.log"))
    print(f"\n{done.total()} stories in {seconds:.0f} s, {logs / MIB:.1f} MiB of logs; {dict(done)}\n{table(measured)}")

    assert not grown(measured, limits), table(measured)
    assert watch.more_in_a_life() <= limits.odd
    assert names(site) - before <= KEPT.keys(), "keys that nobody will ever remove"
    assert before <= names(site)
    assert sizes(site) == early
    assert {run.id for run in site.registry.views.runs()} == {run for lane in lanes for run in lane.last_kept}
    for host in HOSTS:
        assert files(site.root(host)) - disks[host] == expected(lanes, host)
        number, beside = tombs[host]
        assert number > done.total() / 2
        assert beside <= {"highest.json"}, "journals, or locks of them"
    assert len(os.listdir(site.tmp)) == len(HOSTS), "a directory for each pool"
    for host in HOSTS:
        site.kill(f"copy@{host}", signal.SIGTERM)
    assert os.listdir(site.tmp) == []
