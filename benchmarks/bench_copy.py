"""One dense image, file to file and flushed, against ``cp`` and ``sync FILE``: the copy loop must not be a toy.

Ours is what a worker does from OPEN to the published name (driver, staging file, journal, lanes, flushes,
manifest), in a fresh process a round, without the imports; the peer is ``cp SOURCE TARGET; sync TARGET``, run
under two names, whose difference says how much this machine's word is worth.  Before each run the source is
dropped from the page cache, older targets are removed and everything is written back.

    python benchmarks/bench_copy.py [--size 2GiB] [--rounds 7] [--fleet] [--dir DIR]

``--fleet``: also ``blockjobs up`` and ``blockjobs backup``, from the command to its end, claims and events included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from blockjobs.cli.runfile import parse_size
from blockjobs.model.ids import Host
from blockjobs.model.jobs import Checkpoint
from blockjobs.model.runs import plan_backup
from blockjobs.registry.attempts import Claim
from blockworker.drivers.backup import Backup
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))
from carried import Unhindered  # the registry's stand-in of the unit tests: it answers at once, and never holds the job

LIMITS = {"ours, digests off": 1.2, "ours, digests on": 1.4}
PEERS = ("cp, as A", "cp, as B")
HOST = Host("bench")


def ours(source: str, target: str, *, digests: bool) -> float:
    """One job by the worker's own parts; seconds from OPEN to the published name."""
    roots = Roots(HostConfig(name=HOST, read_roots=(os.path.dirname(source),), write_roots=(os.path.dirname(target),)))
    plan = plan_backup(f"{HOST}:{source}", f"{HOST}:{target}", now=datetime.now(UTC), digests=digests)
    (spec,) = plan.jobs
    driver = Backup()
    began = time.perf_counter()
    started = datetime.now(UTC)
    opened = driver.open(roots, spec, lambda: True)
    job = Unhindered(Claim(1, "bench", spec, {}, Checkpoint(), 0, 1, 0, {}))
    work = driver.attached(roots, job)
    with closing(work):
        work.start(job)
    result = {
        "source-change": "unchanged", "attempts": 1, "token": 1, "started": started.timestamp(),
        "finished": datetime.now(UTC).timestamp(), "counts": work.progress().counts,
    }  # fmt: skip
    assert work.durable is not None
    driver.prepare(roots, spec, work.durable, {"identity": opened.identity.to_list()}, result)
    driver.commit(roots, spec, 1)
    driver.clean(roots, spec)
    return time.perf_counter() - began


def ours_apart(source: str, target: str, *, digests: bool) -> float:
    """``ours`` in a process of its own."""
    words = [sys.executable, __file__, "--one", source, target, *(["--digests"] if digests else [])]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def peer(source: str, target: str) -> float:
    began = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    subprocess.run(["sync", target], check=True)
    return time.perf_counter() - began


@contextmanager
def fleet(place: Path) -> Iterator[Callable[[str, str], float]]:
    """``blockjobs up`` with one host; what it gives runs one backup and takes its time."""
    blockjobs = [sys.executable, "-m", "blockjobs"]
    up = subprocess.Popen([*blockjobs, "up", "--dir", str(place / "up"), "--host", f"{HOST}={place}"],
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("ready"):
                break
        env = os.environ | dict(
            line.strip().split("=", 1) for line in (place / "up" / "env").read_text().splitlines() if "=" in line
        )

        def backup(source: str, target: str) -> float:
            began = time.perf_counter()
            subprocess.run([*blockjobs, "backup", f"{HOST}:{source}", f"{HOST}:{target}"], check=True, env=env,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            return time.perf_counter() - began

        yield backup
    finally:
        up.terminate()
        up.wait()


def level(source: Path, targets: Path) -> None:
    """The same start for everybody: no target, nothing dirty, the source not cached."""
    shutil.rmtree(targets, ignore_errors=True)
    targets.mkdir()
    os.sync()
    fd = os.open(source, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def fill(path: Path, size: int) -> None:
    """Bytes that no file system can make smaller."""
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))
        file.flush()
        os.fsync(file.fileno())


def compare(place: Path, size: int, rounds: int, *, with_fleet: bool) -> bool:
    """Print the table; whether every figure holds."""
    source, targets = place / "source.img", place / "targets"
    fill(source, size)
    target = str(targets / "image.img")
    runs: dict[str, Callable[[str, str], float]] = {
        PEERS[0]: peer,
        "ours, digests off": lambda a, b: ours_apart(a, b, digests=False),
        PEERS[1]: peer,
        "ours, digests on": lambda a, b: ours_apart(a, b, digests=True),
    }
    took: dict[str, list[float]] = {name: [] for name in runs}
    with fleet(place) if with_fleet else _nobody() as backup:
        if with_fleet:
            runs["through the fleet"], took["through the fleet"] = backup, []
        for number in range(rounds):
            names = list(runs)
            for name in names[number % len(names) :] + names[: number % len(names)]:  # nobody is always first
                level(source, targets)
                took[name].append(runs[name](str(source), target))
                with open(target, "rb") as file:
                    assert os.fstat(file.fileno()).st_size == size
            print(f"round {number + 1}: " + ", ".join(f"{name} {took[name][-1]:.2f} s" for name in names), flush=True)
    peers = sorted(median(took[name]) for name in PEERS)
    spread, base = peers[1] / peers[0], median([second for name in PEERS for second in took[name]])
    print(f"\n{size >> 20} MiB, {rounds} rounds, {os.cpu_count()} CPUs; spread of cp against itself: {spread:.3f}")
    holds = True
    for name, seconds in took.items():
        ratio = median(seconds) / base
        text = f"{name:18} median {median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {ratio:.2f} x cp"
        if (limit := LIMITS.get(name)) is not None:
            good = ratio <= limit * spread
            holds &= good
            text += f"; at most {limit} x {spread:.3f} = {limit * spread:.2f}: {'holds' if good else 'FALLS SHORT'}"
        print(text)
    return holds


@contextmanager
def _nobody() -> Iterator[Callable[[str, str], float]]:
    yield peer


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(ours(sys.argv[2], sys.argv[3], digests="--digests" in sys.argv))
        return
    parser = argparse.ArgumentParser(description="A dense file to file copy against cp and sync.")
    parser.add_argument("--size", default="2GiB")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--fleet", action="store_true", help="also through `blockjobs up`")
    parser.add_argument("--dir", help="where to copy; three times the size has to be free")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blockjobs-bench-", dir=given.dir) as place:
        compare(Path(place), parse_size(given.size), given.rounds, with_fleet=given.fleet)


if __name__ == "__main__":
    main()
