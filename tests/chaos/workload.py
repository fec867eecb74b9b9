"""What a site does meanwhile: runs of small copies, and verbs that somebody gives."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from sites import Site

from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import BlockjobsError
from blockjobs.model.runs import RunPlan
from blockjobs.model.volumespec import FileVolume, HostedVolume

MIB = 1 << 20
SOURCES = (2, 4, 7)  # MiB of each host's images; of each size one on its disk, and one that is there without the disk


@dataclass
class Sent:
    """A run that was submitted; ``acknowledged``: whether the registry said that it has it."""

    run: str
    members: list[Member]
    acknowledged: bool = False


@dataclass(frozen=True)
class Member:
    job: str
    host: str
    transaction: str
    source: Path
    target: Path


@dataclass
class Workload:
    """Submits runs from a thread of its own, at most ``most`` that are not over."""

    site: Site
    seed: int
    most: int = 6
    sent: list[Sent] = field(default_factory=list)
    digests: dict[Path, str] = field(default_factory=dict)
    verbs: int = 0
    accepted: set[int] = field(default_factory=set)  # the numbers up to which lost decisions were given up

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="workload")
        self._random = random.Random(self.seed)  # noqa: S311 - for runs
        self._open: list[str] = []
        for host in self.site.hosts:
            elsewhere = self.site.place / "sources" / host
            elsewhere.mkdir(parents=True)
            for size in SOURCES:
                path = self.site.image(host, f"source{size}.img", size)
                shutil.copy(path, elsewhere)
                for each in (path, elsewhere / path.name):
                    self.digests[each] = digest(each)
            (self.site.root(host) / "out").mkdir()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Submit no more; returns once the last call is over."""
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._over.is_set():
            with suppress(redis.RedisError, BlockjobsError), Fleet(self.site.server.url) as here:
                while not self._over.wait(self._random.uniform(0.1, 0.6)):
                    self._act(here)

    def _act(self, here: Fleet) -> None:
        self._open = [run for run in self._open if is_open(here, run)]
        if len(self._open) < self.most:
            self._submit(here)
        elif self._random.random() < 0.5:
            self._give_verb(here)

    def _submit(self, here: Fleet) -> None:
        plan, sent = self._draw()
        self.sent.append(sent)
        try:
            here.submit(plan)
        except BlockjobsError as error:
            self.accept_loss(here, str(error))
            return
        sent.acknowledged = True
        self._open.append(sent.run)

    def accept_loss(self, here: Fleet, said: str) -> None:
        """Be an operator who has no newer copy of the registry: go on without the decisions that were lost."""
        if asked := re.search(r"accept-loss (\d+)", said):
            with suppress(BlockjobsError):
                self.accepted.add(here.accept_loss(int(asked[1])))  # once more where that was rolled back

    def _draw(self) -> tuple[RunPlan, Sent]:
        grouped = self._random.random() < 0.75
        jobs: list[dict[str, object]] = []
        for host in self._random.sample(self.site.hosts, self._random.randint(2, len(self.site.hosts))):
            for number in range(self._random.randint(1, 2)):
                place = self._random.choice((self.site.root(host), self.site.place / "sources" / host))
                source = place / f"source{self._random.choice(SOURCES)}.img"
                jobs.append({"id": f"{host}{number}", "source": f"{host}:{source}",
                             "target": f"{host}:{self.site.root(host)}/out/{{run}}-{host}{number}.img"})  # fmt: skip
        plan = self.site.plan(jobs, grouped=grouped, speed=self._random.choice((0, 4 * MIB, 8 * MIB)))
        members = [
            Member(str(job.id), str(job.host), str(job.transaction), path_of(job.source), path_of(job.target))
            for job in plan.jobs
        ]
        return plan, Sent(str(plan.run), members)

    def _give_verb(self, here: Fleet) -> None:
        run = self._random.choice(self._open)
        job = self._random.choice(next(sent for sent in self.sent if sent.run == run).members).job
        with suppress(BlockjobsError):
            match self._random.choice(("pause", "resume", "speed", "cancel")):
                case "pause":
                    here.pause(job, seconds=2)
                case "resume":
                    here.resume(job)
                case "speed":
                    here.set_speed(job, self._random.choice((0, MIB, 8 * MIB)))
                case "cancel":
                    here.cancel(job)
            self.verbs += 1


def is_open(here: Fleet, run: str) -> bool:
    """Whether the registry has a run that is not over."""
    record = here.registry.client.hgetall(f"bj:run:{run}")
    return bool(record) and b"ended" not in record


def path_of(volume: HostedVolume) -> Path:
    assert isinstance(volume.volume, FileVolume)
    return Path(volume.volume.filename)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
