"""Many small jobs of one host in one transaction: what OPEN, PREPARE and a commit cost, through a real Redis.

It does what the steps worker does (``Steps.take``), with the copies left out: what a copy leaves is written by hand.
Each job reads one source of 4 KiB.  The CPU time of a job must not grow with their number: the ratio is that of many
jobs to the median of three rounds of few.  10,000 jobs must be opened within 120 s, on a disk that syncs what it says.

    python benchmarks/bench_steps.py [--jobs 10000] [--dir DIR]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import redis

from blockjobs.model import volumespec
from blockjobs.model.barriers import BY_HOSTS, Do, Finished, Step, next_action
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.model.runs import RunPlan
from blockjobs.registry.attempts import Claim, Progress, Who
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import HostRegistry, Registry
from blockjobs.server import RedisServer
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.records import journal
from blockworker.steps.steps import Steps
from blockworker.targets.staged import StagedTarget

HOST = Host("bench")
RUN = "bench-20261122T103000Z"
LIMIT = 120.0  # seconds for the OPEN of 10,000 jobs
FEW, ROUNDS = 50, 3
GROWTH = 1.5  # what a job among many may cost, as a multiple of one among few; of CPU time, which others disturb least
CONTENT = b"S" * 4096

Costs = dict[str, tuple[float, float]]  # by step: seconds, and seconds of CPU time


def specs(place: Path, jobs: int) -> tuple[JobSpec, ...]:
    """Jobs from one source into one directory that has to be made."""
    return tuple(
        JobSpec(
            id=JobId(f"{RUN}.j{n}"), transaction=TxnId(RUN), run=RunId(RUN), snapshot="none",
            source=volumespec.parse_volume(f"{HOST}:{place}/source.img"),
            target=volumespec.parse_volume(f"{HOST}:{place}/backup/{RUN}/j{n}.img"), target_base=f"{place}/backup",
        )
        for n in range(jobs)
    )  # fmt: skip


class Bench:
    """One transaction on one host, moved on step by step."""

    def __init__(self, client: redis.Redis, place: Path, jobs: int) -> None:
        (place / "backup").mkdir()
        (place / "source.img").write_bytes(CONTENT)
        config = HostConfig(
            name=HOST, read_roots=(str(place),), write_roots=(f"{place}/backup",), state=f"{place}/state"
        )  # fmt: skip
        self.jobs, self.roots = specs(place, jobs), Roots(config)
        self.registry, self.host = Registry(client), HostRegistry(client, HOST)
        self.steps = Steps(self.host.answers, self.roots)
        self.registry.submit.submit(RunPlan(RunId(RUN), "bench", grouped=True, transactions=(self.jobs,)))

    def on(self) -> Costs:
        """Do everything; what each step of the host took."""
        took: Costs = {}
        while (view := self.registry.transactions.view(TxnId(RUN))) is not None:
            match next_action(view):
                case Do(Step.RUN, _):
                    self.copy()
                case Do(step, _) if step in BY_HOSTS:
                    began, spent = time.monotonic(), time.process_time()
                    self.steps.take(step, TxnId(RUN))
                    before = took.get(step, (0.0, 0.0))
                    took[step] = before[0] + time.monotonic() - began, before[1] + time.process_time() - spent
                case Do(Step.CONCLUDE, hosts):
                    self.registry.transactions.conclude(view, hosts)
                case Do(step, hosts):
                    for host in hosts:
                        getattr(self.registry.transactions, step)(view, host)
                case Finished():
                    return took
                case decided:
                    self.registry.transactions.settle(view, decided.decision, "all of it is prepared")  # type: ignore[union-attr]
        raise SystemExit(f"transaction {RUN} is gone")

    def copy(self) -> None:
        """Write what the attempts would have written."""
        for n, spec in enumerate(self.jobs):
            claim = self.host.attempts.claim(spec.id, Who(f"a{n}", 1, 1.0, "boot"))
            assert isinstance(claim, Claim), claim
            path, root = volumespec.volume_label(spec.target.volume), journal.Root(self.roots.config.write_roots[0])
            member = journal.read_member(self.roots, root, spec.transaction, spec.id)
            assert member is not None, path
            target = StagedTarget.take(self.roots, member, claim.token)
            target.pwrite(memoryview(CONTENT), 0)
            target.close()
            done = Checkpoint(member.uuid, ((0, len(CONTENT)),))
            now = time.time()
            result = {"source-change": "unchanged", "counts": {}, "attempts": 1, "token": claim.token}
            self.host.attempts.finish(
                claim, Progress(len(CONTENT), len(CONTENT)), durable=done, errno=0, text="",
                result={**result, "started": now, "finished": now},
            )  # fmt: skip


def run(jobs: int, directory: str | None) -> Costs:
    """One run in a place and with a Redis of its own."""
    place = Path(tempfile.mkdtemp(prefix="bench-steps-", dir=directory))
    try:
        with (
            RedisServer(place / "redis") as server,
            connect_client(server.url) as client,
        ):  # durable, as any that is used
            return Bench(client, place, jobs).on()
    finally:
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--dir")
    asked = parser.parse_args()
    few = [run(FEW, asked.dir) for _ in range(ROUNDS)]
    many = run(asked.jobs, asked.dir)
    print(f"{'ms a job':<10}{FEW:>16} jobs{asked.jobs:>16} jobs    ratio (CPU)")
    wrong = []
    for step, (seconds, spent) in many.items():
        usual = [1000 * median(each[step][kind] for each in few) / FEW for kind in (0, 1)]
        now = [1000 * each / asked.jobs for each in (seconds, spent)]
        ratio = now[1] / usual[1]
        print(f"{step:<10}{usual[0]:>9.1f} ({usual[1]:.1f} CPU){now[0]:>10.1f} ({now[1]:.1f} CPU)    {ratio:.2f}")
        if ratio > GROWTH:
            wrong.append(
                f"{step}: a job among many cost {ratio:.2f} times one among few, at most {GROWTH} was expected"
            )
    print(f"{asked.jobs} jobs were opened within {many[Step.OPEN][0]:.0f} s")
    if asked.jobs == 10_000 and many[Step.OPEN][0] > LIMIT:
        wrong.append(f"10,000 jobs were to be opened within {LIMIT:.0f} s")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
