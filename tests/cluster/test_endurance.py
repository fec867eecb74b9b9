"""Small runs, one after the other, for an hour (five minutes without ``--long``): nothing of the fleet grows.

Memory, descriptors and threads of every process, keys and memory of Redis, and what lies on the disks.  Runs and events
are kept for seconds here, so that there is a steady state; at the end all is forgotten, and the names of all keys are
those of the beginning, but for those in ``KEPT``.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import psutil
import pytest
from fleet import DEADLINE, MIB, Fleet, children, files
from growth import Held, Series, grows, growth, held
from lanes import HOSTS, SEED, Lane
from receiver import Receiver

from blockjobs.process.spawn import spawn_child
from blockjobs.registry import keys
from blockworker.host.config import load_host_config
from blockworker.host.roots import Roots
from blockworker.records.journal import sweep_tombstones

LIFE: Final = 9  # samples of a child, three for each third
EVERY: Final = 2.0  # seconds between two samples
KEEP: Final = 30.0  # seconds that runs and events are kept
DAY: Final = 24 * 3600.0

# What is there at the end and was not at the beginning.
KEPT: Final = {
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
    filling: float  # MiB of a steps worker, or Redis: their allocators fill for the first thousand runs
    children: float  # MiB of all children of a copy worker: each is young or old, and there are two
    redis: float  # MiB that Redis uses, without the stream of events
    keys: float  # part of the keys for each run that is kept: runs are forgotten in batches
    odd: int  # descriptors, threads: more or fewer at any moment, as each step has a connection of its own
    odds: int = 12  # of all children together, and so of those that they are connected to


SHORT: Final = Limits(process=3.0, filling=6.0, children=12.0, redis=1.0, keys=0.2, odd=6)
LONG: Final = Limits(process=2.0, filling=2.0, children=12.0, redis=1.0, keys=0.05, odd=3)


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
            "keys": client.dbsize(), "keys a run": client.dbsize() / max(1, client.zcard(keys.runs())),
            "used MiB": (info["used_memory"] - stream) / MIB, "stream MiB": stream / MIB,
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
        alone = limits.filling if who.startswith(("steps", "redis")) else limits.process
        match what:
            case "MiB":
                most = limits.children if family else alone
            case "fds" | "threads" | "clients":
                most = limits.odds if family or who == "redis" else limits.odd
            case "used MiB":
                most = limits.redis
            case "keys a run":
                most = limits.keys * growth(series).start
            case _:  # the stream, the runs that are kept and their keys are as many as there was to do lately
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
    fleet = Fleet(place, HOSTS, qmp=True, allow_overwrite=True, env=env, forked=False, commands={"snap": (str(snap),)})
    for host in HOSTS:
        fleet.image(host, "disk.img", 1)
        fleet.image(host, "qmp.img", 1)
    fleet.processes["events"] = spawn_child(
        [sys.executable, "-m", "blockjobs", "events", "--follow", "--since", "now"], log=Path(os.devnull),
        env=os.environ | {"BLOCKJOBS_REDIS_URL": fleet.server.url},
    )  # fmt: skip
    yield fleet
    fleet.close()


def names(fleet: Fleet) -> set[str]:
    """Of all keys once Celery is quiet; those of one run as one."""
    fleet.until_quiet()
    found = {name.decode() for name in fleet.client.scan_iter(count=1000)}
    return {re.sub(r"[\w.-]+-\d{8}T\d{6}Z", "RUN", name) for name in found}


def sizes(fleet: Fleet) -> dict[str, int]:
    """How much is in the keys that are always there."""
    size = {b"hash": fleet.client.hlen, b"set": fleet.client.scard, b"list": fleet.client.llen,
            b"zset": fleet.client.zcard, b"string": fleet.client.exists, b"stream": fleet.client.exists}  # fmt: skip
    wanted = [
        *fleet.client.scan_iter("bj:h:*:card"),
        "bj:hosts",
        "bj:daemons",
    ]
    return {str(name): size[fleet.client.type(name)](name) for name in wanted}


def forgotten(fleet: Fleet, lanes: int) -> None:
    """Wait until the coordinator has forgotten all runs but those of which a rule keeps something."""
    fleet.until_true(lambda: fleet.client.zcard(keys.runs()) <= 2 * lanes and not fleet.registry.history.due())


def seed(fleet: Fleet) -> None:
    """An image to restore again and again."""
    root = fleet.root("a")
    run = fleet.submit(fleet.plan([{"id": "one", "source": f"a:{root}/disk.img", "target": f"a:{root}/{SEED}"}]))
    fleet.until("RUN_ENDED", run)


def swept(fleet: Fleet, host: str) -> tuple[int, set[str]]:
    """A host's tombstones, which it keeps for a week, are swept; how many, and what lies beside them then."""
    config = load_host_config(fleet.place / f"{host}.toml")
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
    seconds, warm, many, limits = (3600.0, 600.0, 3, LONG) if long else (300.0, 75.0, 2, SHORT)
    before, disks = names(site), {host: files(site.root(host)) for host in HOSTS}
    seed(site)
    watch, began, early = Watch(site), time.monotonic(), sizes(site)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        lanes = [stack.enter_context(closing(Lane(site, number, receiver.url))) for number in range(many)]
        work(lanes, watch, seconds)
        for _ in range(sum(lane.told for lane in lanes)):  # each run's end was told, as far as it was to be
            receiver.got.get(timeout=DEADLINE)
        forgotten(site, len(lanes))
        assert receiver.got.empty()
    measured = {key: [row for row in rows if row[0] >= began + warm] for key, rows in watch.series.items()}
    done = sum((lane.done for lane in lanes), Counter())
    tombs = {host: swept(site, host) for host in HOSTS}
    logs = sum(log.stat().st_size for log in (site.place / "logs").glob("*.log"))
    print(f"\n{done.total()} stories in {seconds:.0f} s, {logs / MIB:.1f} MiB of logs; {dict(done)}\n{table(measured)}")

    bad = grown(measured, limits)
    assert not bad, table(measured)
    assert watch.more_in_a_life() <= limits.odd
    assert names(site) - before <= KEPT.keys(), "keys that nobody will ever remove"
    assert before <= names(site)
    assert sizes(site) == early
    assert {run.id for run in site.registry.views.runs()} == {run for lane in lanes for run in lane.last_kept}
    for host in HOSTS:
        assert files(site.root(host)) - disks[host] == expected(lanes, host)
        number, beside = tombs[host]
        assert number > done.total() / 2
        assert not beside, "journals, or locks of them"
    assert len(os.listdir(site.tmp)) == len(HOSTS), "a directory for each pool"
    for host in HOSTS:
        site.kill(f"copy@{host}", signal.SIGTERM)
    assert os.listdir(site.tmp) == []
