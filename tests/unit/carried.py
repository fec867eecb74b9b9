"""A job's steps on its host, one behind the other, without a registry: what a driver does when nobody interferes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockjobs.model import volumespec
from blockjobs.model.errors import VolumeError
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.registry.attempts import Claim
from blockworker.drivers.backup import Backup
from blockworker.drivers.base import Driver, Opened, Work
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.targets.given import Prepared


class Unhindered:
    """A claimed job that is never paused or cancelled; a trouble that its policy reports ends it."""

    def __init__(self, claim: Claim) -> None:
        self.spec, self.claim = claim.spec, claim
        self.checkpoints: list[Checkpoint] = []
        self._news = threading.Event()

    def point(self) -> None:
        return None

    def wait(self, seconds: float) -> None:
        self._news.wait(seconds)
        self._news.clear()

    def wake(self) -> None:
        self._news.set()

    def judge(self, trouble: VolumeError) -> None:
        raise trouble

    def ready(self) -> None:
        return None

    def diverging(self, **_: int) -> None:
        return None

    def checkpoint(self, durable: Checkpoint) -> None:
        self.checkpoints.append(durable)


def open_job(driver: Driver, roots: Roots, spec: JobSpec) -> tuple[Opened, dict[str, Any]]:
    """OPEN: what it found, and the same as the registry keeps it."""
    opened = driver.open(roots, spec, lambda: True)
    return opened, {"size": opened.size, "identity": opened.identity.to_list()}


def attempt(driver: Driver, roots: Roots, spec: JobSpec, kept: Mapping[str, Any]) -> tuple[Checkpoint, dict[str, Any]]:
    """The first attempt, to its end: what is durable, and the job's result."""
    return attempt_with(driver, roots, Unhindered(Claim(1, "a1", spec, kept, Checkpoint(), spec.speed, 1, 0, {})))


def attempt_with(
    driver: Driver, roots: Roots, job: Unhindered, *, interval: int = 0
) -> tuple[Checkpoint, dict[str, Any]]:
    """An attempt at a claimed job, to its end: what is durable, and the job's result.

    ``interval``: bytes between two durable checkpoints, where they are not to be as the product has them.
    """
    work: Work = driver.attached(roots, job)
    try:
        if interval:
            work._made.copy._account.limit = interval
        began, claim = time.time(), job.claim
        work.start(job)
        durable = work.durable
        assert durable is not None
        facts = {"attempts": claim.number, "token": claim.token, "started": began, "finished": time.time()}
        return durable, {**facts, "counts": {}, **work.result()}
    finally:
        work.close()


def prepare_job(driver: Driver, roots: Roots, spec: JobSpec) -> dict[str, Any]:
    """All steps up to PREPARE; the job's result, and its ``warnings``."""
    _, kept = open_job(driver, roots, spec)
    durable, result = attempt(driver, roots, spec, kept)
    return {**result, "warnings": list((driver.prepare(roots, spec, durable, kept, result) or Prepared()).warnings)}


def carry_out(driver: Driver, roots: Roots, spec: JobSpec) -> dict[str, Any]:
    """All steps of a job that is committed; its result."""
    result = prepare_job(driver, roots, spec)
    driver.commit(roots, spec, 1)
    driver.clean(roots, spec)
    return result


@dataclass(frozen=True)
class Machine:
    """A host with its VM images below a read and restore root, and its backups below a write root."""

    base: Path

    @property
    def config(self) -> HostConfig:
        images, backup = str(self.base / "images"), str(self.base / "backup")
        return HostConfig(
            name=Host("web1"), read_roots=(images,), write_roots=(backup,), restore_roots=(images,),
            path="/etc/here/host.toml",
        )  # fmt: skip

    def job(self, kind: str, source: str, target: str, **more: object) -> JobSpec:
        parsed = volumespec.parse_volume(f"web1:{self.base}/{target}")
        values: dict[str, Any] = {
            "id": JobId(f"{kind}.a"), "transaction": TxnId(kind), "run": RunId(kind), "type": kind,
            "source": volumespec.parse_volume(f"web1:{self.base}/{source}"), "target": parsed, "snapshot": "none",
            "target_base": str((self.base / target).parent), **more,
        }  # fmt: skip
        return JobSpec(**values)

    def backed_up(self, config: HostConfig | None = None, target: str = "backup/root.img") -> Path:
        """A published backup of ``images/root.img``."""
        carry_out(Backup(), Roots(config or self.config), self.job("backup", "images/root.img", target))
        return self.base / target


def unprivileged(call: Callable[[], Any]) -> Any:
    """What ``call`` returns in a process of user and group 65534; it ends by itself."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            os.write(write_end, json.dumps(call()).encode())
        except BaseException as error:
            os.write(write_end, json.dumps([repr(error)]).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        said = json.load(answer)
    os.waitpid(pid, 0)
    return said
