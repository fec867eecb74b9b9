"""What somebody else may write: a job that reads a volume from end to end, and a volume without a disk.

It uses the public interfaces only: ``blockworker.drivers.base`` and ``blockworker.volumes``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from blockjobs.model.errors import BadInput, VolumeError
from blockjobs.model.jobs import JobSpec
from blockjobs.registry.attempts import Progress
from blockworker.drivers.base import Driver, Job, Opened, Work
from blockworker.host.roots import Roots
from blockworker.volumes import Extent, Identity, NullTarget, Source, Target, open_source

CHUNK = 1 << 16


class Scrub(Driver):
    """``type: scrub``: read all of the source; its target gets nothing."""

    def open(self, roots: Roots, spec: JobSpec, wanted: Callable[[], bool]) -> Opened:
        source = open_source(spec.source.volume, roots)
        try:
            return Opened(source.size, 0, source.identity(), reads="", writes="")
        finally:
            source.close()

    def attached(self, roots: Roots, job: Job) -> Scrubbing:
        return Scrubbing(open_source(job.spec.source.volume, roots), int(job.spec.options.get("rounds", 1)))


class Scrubbing(Work):
    def __init__(self, source: Source, rounds: int) -> None:
        self._source, self._rounds, self._offset = source, rounds, 0
        self._enough = False

    def start(self, job: Job) -> None:
        view = memoryview(bytearray(CHUNK))
        for number in range(self._rounds):
            for start in range(0, self._source.size, CHUNK):
                job.point()
                self._read(job, view[: min(CHUNK, self._source.size - start)], start)
                self._offset = number * self._source.size + min(start + CHUNK, self._source.size)
        job.ready()
        while not self._enough:
            job.wait(0.2)
            job.point()

    def _read(self, job: Job, view: memoryview, start: int) -> None:
        while True:
            try:
                return self._source.pread_into(view, start)
            except VolumeError as trouble:
                job.judge(trouble)
            job.point()

    def progress(self) -> Progress:
        return Progress(self._offset, self._rounds * self._source.size, {"read": self._offset})

    def pulse(self) -> int:
        return time.monotonic_ns()

    def complete(self) -> None:
        self._enough = True

    def close(self) -> None:
        self._source.close()


class Patterns:
    """``driver: pattern``: ``size`` bytes, all of them ``byte``."""

    def parse(self, keys: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        byte, size = keys.get("byte"), keys.get("size")
        if not isinstance(byte, int) or not isinstance(size, int) or not 0 <= byte <= 255:
            raise BadInput("pattern: 'byte' from 0 to 255 and 'size' were expected")
        return f"pattern-{byte}-{size}", {"byte": byte, "size": size}

    def open_source(self, keys: Mapping[str, Any], roots: Roots) -> Pattern:
        return Pattern(keys["byte"], keys["size"])

    def open_target(self, keys: Mapping[str, Any], roots: Roots, size: int) -> Target:
        return NullTarget(size)


class Pattern:
    def __init__(self, byte: int, size: int) -> None:
        self._byte, self.size = byte, size

    def pread_into(self, view: memoryview, offset: int) -> None:
        view[:] = bytes([self._byte]) * len(view)

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        yield Extent(start, length, data=True)

    def identity(self) -> Identity:
        return Identity("none", size=self.size)

    def allocated(self) -> int:
        return self.size

    def close(self) -> None:
        pass
