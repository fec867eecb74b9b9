"""A point in time: every target of a source that is written to is one instant of it, and nothing of a cut is left."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from fleet import MIB, Fleet, files
from mounts import mounted

from blockjobs.model.jobs import OnChange


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with mounted("xfs", tmp_path_factory.mktemp("xfs")) as top:
        fleet = Fleet(top, ["a", "b"])
        yield fleet
        fleet.close()


class Stamper(threading.Thread):
    """Stamps images with generations, in step: each in one write, which no reflink can come in between.

    ``log``: of each generation and image, when its write began and when it was over.
    """

    def __init__(self, images: list[Path], mib: int) -> None:
        super().__init__()
        self._size, self._stop_it = mib * MIB, threading.Event()
        self._fds = [os.open(image, os.O_RDWR | os.O_CREAT, 0o600) for image in images]
        self.log: list[list[tuple[float, float]]] = [[] for _ in images]
        self._stamp()

    def _stamp(self) -> None:
        generation = len(self.log[0]).to_bytes(8, "little") * (self._size // 8)
        for fd, log in zip(self._fds, self.log, strict=True):
            began = time.time()
            assert os.pwrite(fd, generation, 0) == self._size
            log.append((began, time.time()))

    def run(self) -> None:
        while not self._stop_it.wait(0.001):
            self._stamp()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_it.set()
        self.join()
        for fd in self._fds:
            os.close(fd)


def generations(image: Path) -> set[int]:
    """Which there are anywhere in an image."""
    return set(memoryview(image.read_bytes()).cast("Q"))


def record(target: Path) -> dict[str, Any]:
    return dict(json.loads(Path(f"{target}.manifest.json").read_text()))


def job(fleet: Fleet, host: str, name: str, **options: object) -> dict[str, object]:
    root = fleet.root(host)
    (root / "backup").mkdir(exist_ok=True)
    return {
        "id": name, "source": f"{host}:{root}/{name}.img", "target": f"{host}:{root}/backup/{{run}}/{name}.img",
        **options,
    }  # fmt: skip


def target(fleet: Fleet, host: str, run: str, name: str) -> Path:
    return fleet.root(host) / "backup" / run / f"{name}.img"


def cuts(fleet: Fleet) -> set[str]:
    """Every cut beside a source."""
    return {name for host in fleet.hosts for name in files(fleet.root(host)) if name.endswith(".cut")}


def test_with_reflink_every_target_is_one_generation_and_without_it_they_mix(xfs: Fleet, long: bool) -> None:
    mib, rounds = (256, 20) if long else (64, 3)
    with Stamper([xfs.root("a") / "stamped.img"], mib):
        for _ in range(rounds):
            run = xfs.submit(xfs.plan([job(xfs, "a", "stamped")]))
            ended = xfs.until("RUN_ENDED", run)
            assert ended.fields["failed"] == "0", xfs.jobs(run)[0].error
            assert len(generations(target(xfs, "a", run, "stamped"))) == 1
            told = record(target(xfs, "a", run, "stamped"))
            assert (told["cut"]["how"], told["source_change"]) == ("reflink", "unchanged")
            target(xfs, "a", run, "stamped").unlink()
        mixed = xfs.plan([job(xfs, "a", "stamped", snapshot="none", live=True)], on_source_change=OnChange.REPORT)
        control = xfs.submit(mixed)
        xfs.until("RUN_ENDED", control)
    assert len(generations(target(xfs, "a", control, "stamped"))) > 1
    told = record(target(xfs, "a", control, "stamped"))
    assert (told["cut"], told["source_change"]) == ({"how": "none", "live": True}, "changed")
    assert not cuts(xfs)
