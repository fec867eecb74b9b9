"""A host of the test's own: a read root, a write root, and processes that die where they are told to."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from killed import kill_at_every_change

from blockjobs.model import volumespec
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockworker.copy.digests import DigestFile, chunk_digest
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.records.journal import MemberFiles
from blockworker.targets import manifest
from blockworker.targets.opening import open_member
from blockworker.targets.prepare import prepare_member
from blockworker.targets.staged import StagedTarget
from blockworker.volumes import open_source

MIB = 1 << 20
AT = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Site:
    """One host on a temporary directory."""

    base: Path
    allow_overwrite: bool = False
    cuts: bool = False  # its images lie beneath a write root, too, and its command ``copy`` is ``base/cutter``

    @property
    def images(self) -> Path:
        return self.base / "images"

    @property
    def backup(self) -> Path:
        return self.base / "backup"

    @property
    def roots(self) -> Roots:
        read, write = str(self.images), str(self.backup)
        config = HostConfig(
            name=Host("web1"), read_roots=(read,), write_roots=(write, read) if self.cuts else (write,),
            allow_overwrite=self.allow_overwrite,
            commands={"copy": ("/bin/sh", f"{self.base}/cutter")} if self.cuts else {},
        )  # fmt: skip
        return Roots(config)

    def image(self, content: bytes = b"A" * MIB + b"B" * MIB + b"tail", name: str = "root.img") -> Path:
        path = self.images / name
        path.write_bytes(content)
        return path

    def spec(self, job: str = "R.root", name: str = "R/root.img", **changes: Any) -> JobSpec:
        """A job from ``root.img`` into a directory that has to be made."""
        values: dict[str, Any] = {
            "id": JobId(job),
            "transaction": TxnId("R"),
            "run": RunId("R"),
            "source": volumespec.parse_volume(f"web1:{self.images}/root.img"),
            "target": volumespec.parse_volume(f"web1:{self.backup}/{name}"),
            "target_base": str(self.backup),
        }
        return JobSpec(**{**values, **changes})

    def tree(self) -> list[str]:
        """Everything beneath the write root."""
        return sorted(str(path.relative_to(self.backup)) for path in self.backup.rglob("*"))

    def opened(self, spec: JobSpec) -> MemberFiles:
        return open_member(self.roots, spec, size=os.stat(volumespec.volume_label(spec.source.volume)).st_size)

    def copied(self, spec: JobSpec) -> MemberFiles:
        """The job opened and copied, chunk by chunk."""
        member = self.opened(spec)
        source = open_source(spec.source.volume, self.roots)
        target = StagedTarget.take(self.roots, member, 1)
        try:
            for start in range(0, source.size, MIB):
                view = memoryview(bytearray(min(MIB, source.size - start)))
                source.pread_into(view, start)
                target.pwrite(view, start)
                if isinstance(target.digests, DigestFile):
                    target.digests.put(start // MIB, chunk_digest(view))
            target.flush()
        finally:
            target.close()
            source.close()
        return member

    def manifest(self, spec: JobSpec, size: int) -> dict[str, Any]:
        source = open_source(spec.source.volume, self.roots)
        identity = source.identity()
        source.close()
        return manifest.build_manifest(
            spec,
            size=size,
            identity=identity,
            source_change="unchanged",
            attempts=[{"number": 1, "token": 1}],
            counts={"read": size, "written": size},
            started=AT,
            finished=AT,
        )

    def prepared(self, spec: JobSpec) -> MemberFiles:
        member = self.copied(spec)
        prepare_member(self.roots, member, ((0, member.size),), self.manifest(spec, member.size))
        return member


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return _site(tmp_path)


@pytest.fixture
def sites(tmp_path: Path) -> Callable[[], Site]:
    """Fresh hosts, one a call."""
    return lambda: _site(tmp_path / str(len(list(tmp_path.iterdir()))))


@pytest.fixture
def site_at() -> Callable[..., Site]:
    """A fresh host in a place of the test's choice."""
    return _site


def _site(base: Path, **more: Any) -> Site:
    made = Site(base, **more)
    made.images.mkdir(parents=True)
    made.backup.mkdir()
    return made


@pytest.fixture
def largest_file() -> Iterator[int]:
    """The size in bytes beyond which the kernel lets this process make no file, whatever the file system could hold."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, before[1]))
    yield 1 << 30
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def killed_at_every_change() -> Callable[..., None]:
    """Kill an action before each change of the file system, one after the other: see ``kill_at_every_change``."""
    return kill_at_every_change
