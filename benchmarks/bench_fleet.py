"""The control plane alone: 200 hosts (stand-ins, no copying), 1,000 null jobs, grouped and each for itself.

Prints what ``docs/scale.md`` quotes: submit and time to the end per job, Redis commands per job and which, the
slowest script, events and memory per job, and what an idle host costs a second.

    python benchmarks/bench_fleet.py [--hosts 200] [--jobs 5] [--processes 2] [--dir DIR] [--grouped]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from blockjobs.model import ids, volumespec
from blockjobs.model.ids import Host, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.runs import RunPlan
from blockjobs.process.spawn import spawn_child
from blockjobs.registry import keys, scripts
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.server import RedisServer

STANDINS = Path(__file__).parents[1] / "tests" / "cluster" / "standins.py"
LIMIT = 300.0  # seconds for any one wait


class Bench:
    def __init__(self, place: Path, hosts: list[Host], processes: int) -> None:
        self.hosts, self.place = hosts, place
        self.server = RedisServer(place / "redis").start()
        self.client = connect_client(self.server.url)
        self.registry = Registry(self.client)
        self.seq = "0"
        self.children = [self._start("coordinator", "-m", "blockjobs", "coordinator")]
        self.children.append(self._start("finalizer", "-m", "blockjobs", "finalizer"))
        for number in range(processes):
            share = hosts[number::processes]
            self.children.append(self._start(f"standins-{number}", str(STANDINS), self.server.url, *share))
        self.until("HOST_UP", len(hosts))

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        env = os.environ | {"BLOCKJOBS_REDIS_URL": self.server.url}
        return spawn_child([sys.executable, *words], log=self.place / f"{name}.log", env=env)

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        self.client.close()
        self.server.stop()

    def until(self, name: str, count: int = 1) -> None:
        """Read the events on, until ``count`` of this name were seen."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            for event in self.registry.events.after(self.seq, block_ms=500):
                self.seq = event.seq
                count -= event.name == name
                if not count:
                    return
        raise SystemExit(f"no {name} within {LIMIT:.0f} s; see {self.place}")

    def plan(self, name: str, jobs: int, *, grouped: bool) -> RunPlan:
        run = RunId(f"{name}-20261122T000000Z")
        specs = []
        for host in self.hosts:
            for number in range(jobs):
                null = {"driver": "null-co", "host": host, "size": 1 << 30, "read-zeroes": True}
                job = ids.job_id(f"{run}.{host}-{number}")
                txn = TxnId(run if grouped else f"{run}.{host}-{number}")
                volume = volumespec.parse_volume(null)
                specs.append(JobSpec(id=job, transaction=txn, run=run, source=volume, target=volume))
        return RunPlan(run, name, grouped, (tuple(specs),) if grouped else tuple((spec,) for spec in specs))

    def counters(self) -> tuple[Counter[str], Counter[str]]:
        """Calls and microseconds of each command since the last reset."""
        stats: dict[str, Any] = self.client.info("commandstats")
        names = {name: name.removeprefix("cmdstat_") for name in stats}
        return (
            Counter({names[n]: int(s["calls"]) for n, s in stats.items()}),
            Counter({names[n]: int(s["usec"]) for n, s in stats.items()}),
        )

    @property
    def _names(self) -> dict[str, str]:
        return {str(self.client.script_load(scripts.script_source(name))): name for name in scripts.NAMES}

    def slowest(self) -> list[tuple[float, str]]:
        """The slowest calls in ms, with the script's name."""
        digests, rows = self._names, []
        for row in self.client.slowlog_get(20):
            words = str(row["command"].decode(errors="replace")).split(" ")
            rows.append((row["duration"] / 1000, digests.get(words[1], words[0]) if len(words) > 1 else words[0]))
        return sorted(rows, reverse=True)

    def census(self, name: str, *, grouped: bool) -> None:
        """What came over connections, by MONITOR: scripts by name.  Slow, so nothing else is measured with it."""
        plan, digests = self.plan(name, 1, grouped=grouped), self._names
        seen: Counter[str] = Counter()
        counting = threading.Thread(target=self._count, args=(digests, plan.run, seen))
        counting.start()
        self.client.ping()
        self.registry.submit.submit(plan)
        self.until("RUN_ENDED")
        self.client.publish("done", plan.run)
        counting.join()
        total = len(plan.jobs)
        counts = ", ".join(f"{name} {n / total:.2f}" for name, n in seen.most_common() if n / total >= 0.02)
        print(f"  {name}: {sum(seen.values()) / total:.1f} requests/job: {counts}")

    def _count(self, digests: dict[str, str], run: str, seen: Counter[str]) -> None:
        with connect_client(self.server.url).monitor() as monitor:
            for row in monitor.listen():
                words = row["command"].split(" ")
                if words[:2] == ["PUBLISH", "done"] and words[2] == run:
                    return
                if row["client_type"] != "lua":
                    seen[digests.get(words[1], "?") if words[0] == "EVALSHA" else words[0].lower()] += 1

    def idle(self, seconds: float) -> None:
        self.client.config_resetstat()
        used = _cpu(self.server), _cpu_of(self.children[0]), _cpu_of(self.children[1])
        self.client.blpop(["nobody"], timeout=seconds)
        calls, micros = self.counters()
        top = ", ".join(f"{name} {n / seconds:.0f}" for name, n in calls.most_common(5))
        now = _cpu(self.server), _cpu_of(self.children[0]), _cpu_of(self.children[1])
        redis, coordinator, finalizer = ((b - a) / seconds * 100 for a, b in zip(used, now, strict=True))
        print(f"idle, {len(self.hosts)} hosts, one second: {sum(calls.values()) / seconds:.0f} commands ({top}), "
              f"{sum(micros.values()) / seconds / 1e4:.1f} % of Redis' one thread by its own count; "
              f"CPU: redis {redis:.1f} %, coordinator {coordinator:.1f} %, finalizer {finalizer:.1f} %")  # fmt: skip
        with self.client.pipeline(transaction=False) as pipe:
            began = time.monotonic()
            for host in self.hosts:
                pipe.hgetall(keys.card(host))
            pipe.execute()
        print(f"one read of every host's card: {(time.monotonic() - began) * 1e3:.0f} ms")

    def round(self, name: str, jobs: int, *, grouped: bool) -> None:
        plan = self.plan(name, jobs, grouped=grouped)
        total = len(plan.jobs)
        self.client.config_resetstat()
        self.client.slowlog_reset()
        self.client.config_set("slowlog-log-slower-than", 1000)
        memory = self.client.info("memory")["used_memory"]
        before = self.client.xlen(keys.events())
        used = _cpu(self.server), *map(_cpu_of, self.children)
        began = time.monotonic()
        self.registry.submit.submit(plan)
        submitted = time.monotonic() - began
        view = time.monotonic()
        assert sum(1 for _ in self.registry.views.jobs(self.registry.views.places(plan.run))) == total
        view = time.monotonic() - view
        self.until("RUN_ENDED")
        whole = time.monotonic() - began
        now = _cpu(self.server), *map(_cpu_of, self.children)
        calls, micros = self.counters()
        run = self.registry.views.run(plan.run)
        events = self.client.xlen(keys.events()) - before
        stream = self.client.memory_usage(keys.events(), samples=0) / max(1, self.client.xlen(keys.events()))
        print(f"\n{name}: {total} jobs, {len(plan.transactions)} transactions, "
              f"{len(self.hosts)} hosts; failed {run.failed}, cancelled {run.cancelled}")  # fmt: skip
        print(f"  submit {submitted:.1f} s, {submitted * 1e3 / total:.2f} ms/job; status of all {view * 1e3:.0f} ms; "
              f"all concluded after {whole:.1f} s ({total / whole:.0f} jobs/s)")  # fmt: skip
        print(f"  events {events / total:.1f}/job, {events / whole:.0f}/s, {stream:.0f} bytes each in the stream")
        print(f"  commands {sum(calls.values()) / total:.0f}/job, those that scripts call counted")
        print("  by time: " + ", ".join(f"{n} {us / total:.0f} us/job" for n, us in micros.most_common(8)))
        print("  slowest: " + ", ".join(f"{n} {ms:.1f} ms" for ms, n in self.slowest()[:6]))
        names = ["redis", "coordinator", "finalizer", *(f"standins-{n}" for n in range(len(self.children) - 2))]
        spent = [b - a for a, b in zip(used, now, strict=True)]
        print("  CPU s: " + ", ".join(f"{n} {s:.1f}" for n, s in zip(names, spent, strict=True)))
        memory = self.client.info("memory")["used_memory"] - memory
        print(f"  memory {memory / total:.0f} bytes/job with its events; {self._record(plan):.0f} of them its record")

    def _record(self, plan: RunPlan) -> float:
        some = plan.jobs[:50]
        return sum(self.client.memory_usage(keys.job(job.host, job.id), samples=0) or 0 for job in some) / len(some)


def _cpu(server: RedisServer) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system


def _cpu_of(child: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(child.pid).cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=5, help="a host")
    parser.add_argument("--processes", type=int, default=2, help="of stand-ins")
    parser.add_argument("--dir", help="where Redis keeps its file; /dev/shm leaves the disk out")
    parser.add_argument("--grouped", action="store_true", help="one transaction of all jobs, and nothing else")
    given = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory(prefix="blockjobs-bench-", dir=given.dir) as place:
        began = time.monotonic()
        bench = Bench(Path(place), [Host(f"h{n:04}") for n in range(given.hosts)], given.processes)
        try:
            print(f"{given.hosts} hosts up after {time.monotonic() - began:.1f} s")
            bench.idle(3.0)
            bench.round("grouped", given.jobs, grouped=True)
            if given.grouped:
                return
            bench.round("individual", given.jobs, grouped=False)
            print("\nover the wire, one job a host, the background of all hosts included:")
            bench.census("one-transaction", grouped=True)
            bench.census("each-its-own", grouped=False)
        finally:
            bench.close()


if __name__ == "__main__":
    main()
