"""A backup job from OPEN to CLEAN on a disk whose power is cut at one point, and what has to be true behind the cut."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from carried import Unhindered, attempt_with, open_job
from killed import CHANGES, KERNEL_CHANGES, forked
from shutdown import Disk

from blockjobs.model import volumespec
from blockjobs.model.errors import BlockjobsError
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.registry.attempts import Claim
from blockworker.copy.digests import CHUNK, LENGTH, chunk_digest
from blockworker.cuts import cut_files
from blockworker.drivers.backup import Backup
from blockworker.host.config import HostConfig
from blockworker.host.roots import Root, Roots
from blockworker.records import journal as journals
from blockworker.system import kernel
from blockworker.targets import manifest
from blockworker.targets.opening import find_member

MIB: Final = 1 << 20
FEW: Final = journals.FEW
INTERVAL: Final = 2 * MIB  # bytes between two durable checkpoints: a small image has several
# The calls that change a disk or make a change durable; before each of them the power can go.
POINTS: Final = (
    "fsync", "fdatasync", "rename", "replace", "unlink", "rmdir", "mkdir", "ftruncate", "link", "pwrite", "pwritev",
    "fchown", "fchmod", "setxattr", "posix_fallocate",
)  # fmt: skip
assert {f"os.{name}" for name in ("rename", "mkdir", "rmdir", "link")} <= CHANGES  # one idea of what a change is


@dataclass(frozen=True)
class Mode:
    """How the job of a story is submitted and how it ends."""

    name: str
    overwrite: bool = False
    qcow2: bool = False
    cut: bool = False  # its source lies on the disk as well, and is cut by a reflink
    abort: bool = False
    own_file: bool = False  # the journal has a file for the job alone, as where it is one of many


MODES: Final = {
    mode.name: mode
    for mode in (
        Mode("plain"), Mode("overwrite", overwrite=True), Mode("qcow2", qcow2=True), Mode("abort", abort=True),
        Mode("cut", cut=True), Mode("cut-abort", cut=True, abort=True), Mode("own-file", own_file=True),
        Mode("own-file-abort", own_file=True, abort=True),
    )
}  # fmt: skip


class Registry:
    """What the registry was told: a log that lies outside of the disk, one line for each answer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_text("")

    def note(self, what: str, **facts: Any) -> None:
        with self._path.open("a") as log:
            log.write(json.dumps({"what": what, **facts}) + "\n")

    def last(self, what: str) -> dict[str, Any] | None:
        found = [entry for entry in map(json.loads, self._path.read_text().splitlines()) if entry["what"] == what]
        return found[-1] if found else None

    def expect(self, what: str) -> dict[str, Any]:
        found = self.last(what)
        assert found is not None, f"the registry was never told of '{what}'"
        return found


class Recording(Unhindered):
    """A claimed job whose checkpoints reach the registry."""

    def __init__(self, claim: Claim, registry: Registry) -> None:
        super().__init__(claim)
        self._registry = registry

    def checkpoint(self, durable: Checkpoint) -> None:
        self._registry.note("durable", staging=durable.staging, ranges=durable.ranges)


class Story:
    """One job on one disk; ``place`` is a directory that keeps its files when the power goes."""

    def __init__(self, disk: Disk, place: Path, mode: Mode) -> None:
        self.disk, self.mode, self._place = disk, mode, place
        self.registry = Registry(place / "registry.log")
        if not mode.cut:
            (place / "source.img").write_bytes(self.content)

    @cached_property
    def content(self) -> bytes:
        """An image of some MiB with a hole in the middle and a tail that fills no chunk."""
        filler = random.Random(7)  # noqa: S311 - content, not a secret
        parts = [bytes(MIB) if n % 4 == 3 else bytes([65 + n]) + filler.randbytes(MIB - 1) for n in range(7)]
        return b"".join(parts) + b"the tail of it"

    @property
    def source(self) -> Path:
        return self.disk.top / "source/source.img" if self.mode.cut else self._place / "source.img"

    @property
    def target(self) -> Path:
        return self.disk.top / "backup/R" / ("out.qcow2" if self.mode.qcow2 else "out.img")

    @property
    def roots(self) -> Roots:
        top = str(self.disk.top)
        return Roots(
            HostConfig(
                name=Host("h"), read_roots=(str(self.source.parent),), write_roots=(top,),
                allow_overwrite=self.mode.overwrite,
            )
        )  # fmt: skip

    @property
    def spec(self) -> JobSpec:
        file = {"driver": "file", "filename": str(self.target)}
        target = {"driver": "qcow2", "file": file} if self.mode.qcow2 else file
        return JobSpec(
            id=JobId("R.a"), transaction=TxnId("R"), run=RunId("R"), source=volumespec.parse_volume(f"h:{self.source}"),
            target=volumespec.parse_volume({"host": "h", **target}), target_base=str(self.disk.top / "backup"),
            snapshot="reflink" if self.mode.cut else "none", overwrite=self.mode.overwrite,
        )  # fmt: skip

    def set_up(self) -> None:
        """A new file system with what is there before the job begins, all of it durable."""
        journals.FEW = 0 if self.mode.own_file else FEW  # type: ignore[misc]
        self.disk.make()
        (self.disk.top / "backup").mkdir()
        if self.mode.overwrite:
            self.target.parent.mkdir()
            self.target.write_bytes(self.replaced)
        if self.mode.cut:
            self.source.parent.mkdir()
            self.source.write_bytes(self.content)
        os.sync()

    replaced: Final = b"an older backup" * 1000

    # --- the job, step by step, each as often as it is asked for ------------------------------------------------

    def go_on(self, token: int) -> None:
        """Carry the job on from what the registry knows to its end."""
        driver, roots, spec = Backup(), self.roots, self.spec
        if not self.registry.last("open"):
            _, kept = open_job(driver, roots, spec)
            self.registry.note("open", kept=kept)
        if self.mode.cut and not self.registry.last("cut"):
            self._cut(driver, roots, spec)
        if not self.registry.last("finished"):
            self._copy(driver, roots, spec, token)
        if not self.registry.last("prepared"):
            finished = self.registry.expect("finished")
            driver.prepare(roots, spec, _checkpoint(finished), self._kept(), finished["result"])
            self.registry.note("prepared")
        if self.mode.abort:
            return self.settle("abort")
        return self.settle("commit")

    def settle(self, decision: str) -> None:
        driver, roots, spec = Backup(), self.roots, self.spec
        if not self.registry.last("decision"):
            self.registry.note("decision", word=decision)
        if not self.registry.last("settled"):
            if decision == "commit":
                driver.commit(roots, spec, 5)
            else:
                driver.abort(roots, spec, 5, opened=self.registry.last("open") is not None)
            self.registry.note("settled")
        driver.clean(roots, spec)

    def _cut(self, driver: Backup, roots: Roots, spec: JobSpec) -> None:
        with journals.locked_open_journal(roots, Root(str(self.disk.top)), spec.transaction) as journal:
            assert journal is not None
            cut_files.record_begun_cuts(journal, {spec.id})
            driver.brace(roots, spec)
            cut = driver.cut(roots, spec, {})
            driver.keep(roots, spec, cut)
        self.registry.note("cut", cut=cut.to_dict())
        with self.source.open("r+b") as source:
            source.write(b"written behind the cut")

    def _copy(self, driver: Backup, roots: Roots, spec: JobSpec, token: int) -> None:
        known = self.registry.last("durable")
        durable = _checkpoint(known) if known else Checkpoint()
        claim = Claim(token, f"a{token}", spec, self._kept(), durable, 0, token, 0, {})
        durable, result = attempt_with(driver, roots, Recording(claim, self.registry), interval=INTERVAL)
        self.registry.note("finished", staging=durable.staging, ranges=durable.ranges, result=result)

    def _kept(self) -> dict[str, Any]:
        """What OPEN and CUT found, as the registry keeps it."""
        cut = self.registry.last("cut")
        return {**self.registry.expect("open")["kept"], **({"cut": cut["cut"]} if cut else {})}

    # --- what has to be true --------------------------------------------------------------------------------------

    def wrongs(self, *, abort: bool) -> list[str]:
        """Everything that is wrong behind a cut: as it is found, and once the job was carried to its end.

        ``abort``: an undecided job is given up, else it goes on.
        """
        wrongs = [*self._wrong_when_found()]
        decided = self.registry.last("decision")
        try:
            if self.mode.abort or (abort and not decided):
                self.settle("abort")
                return [*wrongs, *self._wrong_when_aborted()]
            self.go_on(3)
        except (BlockjobsError, OSError, AssertionError) as error:
            return [*wrongs, f"the job does not go on: {type(error).__name__}: {error}"]
        return [*wrongs, *self._wrong_when_committed("at the end"), *self._wrong_names()]

    def _wrong_when_found(self) -> Iterator[str]:
        settled, decided = self.registry.last("settled"), self.registry.last("decision")
        if settled and not self.mode.abort:
            yield from self._wrong_when_committed("before anybody looked after it")
        elif self.target.exists() and self.mode.overwrite:
            if self.target.read_bytes() not in (self.replaced, self.content):
                yield "the target is neither what it was nor what was copied"
        elif self.target.exists():
            if not decided or decided["word"] != "commit":
                yield "the target is visible, and nothing is decided"
            if not self.mode.qcow2 and self.target.read_bytes() != self.content:
                yield "the target is visible and incomplete"
        yield from self._wrong_ranges()

    def _wrong_ranges(self) -> Iterator[str]:
        """Ranges that the registry has as durable, and that are not what was copied."""
        known, member = self.registry.last("durable"), find_member(self.roots, self.spec)
        if known is None or self.mode.qcow2 or self.registry.last("decision"):
            return
        if member is None:
            yield "ranges are durable, and no journal knows their file"
            return
        if member.uuid != known["staging"]:
            yield "ranges are durable of another file than the journal's"
            return
        try:
            image = (self.target.parent / member.staging).read_bytes()
            digests = (self.target.parent / member.digests).read_bytes()
        except FileNotFoundError as error:
            yield f"ranges are durable of a file that is gone: {error.filename}"
            return
        for start, end in known["ranges"]:
            if image[start:end] != self.content[start:end]:
                yield f"bytes {start} to {end} are not what was copied"
            for chunk in range(start // CHUNK, -(-end // CHUNK)):
                data = self.content[chunk * CHUNK : (chunk + 1) * CHUNK]
                wanted = chunk_digest(memoryview(data)) if any(data) else bytes(LENGTH)
                if digests[chunk * LENGTH : (chunk + 1) * LENGTH] != wanted:
                    yield f"the digest of chunk {chunk} is not that of what was copied"

    def _wrong_when_committed(self, when: str) -> Iterator[str]:
        if not self.target.exists():
            yield f"{when}: the committed image is gone"
            return
        if not self.mode.qcow2 and self.target.read_bytes() != self.content:
            yield f"{when}: the committed image differs"
        try:
            if manifest.verify_image(str(self.target), manifest.load_manifest(f"{self.target}.manifest.json")).bad:
                yield f"{when}: the committed image differs from its digests"
        except BlockjobsError as error:
            yield f"{when}: the committed image cannot be verified: {error}"

    def _wrong_when_aborted(self) -> Iterator[str]:
        wanted = {"backup"}
        wanted |= {"source", "source/source.img"} if self.mode.cut else set()
        wanted |= {"backup/R", "backup/R/out.img"} if self.mode.overwrite else set()
        if (tree := self._tree()) != wanted:
            yield f"the abort left {sorted(tree - wanted)}, and took {sorted(wanted - tree)}"
        if self.mode.overwrite and self.target.read_bytes() != self.replaced:
            yield "the abort did not leave what was there before"

    def _wrong_names(self) -> Iterator[str]:
        if hidden := [name for name in self._tree() if os.path.basename(name).startswith(".")]:
            yield f"the commit left {hidden}"

    def _tree(self) -> set[str]:
        top = self.disk.top
        names = {str(path.relative_to(top)) for path in top.rglob("*")}
        return {name for name in names if not name.startswith((".blockjobs", "lost+found"))}


def _checkpoint(entry: dict[str, Any]) -> Checkpoint:
    return Checkpoint(entry["staging"], tuple((start, end) for start, end in entry["ranges"]))


def run_until_cut(story: Story, point: int, *, token: int = 1, omit: Callable[[], None] = lambda: None) -> int:
    """Carry the story on in a process of its own, and cut the power before its ``point``-th change; 0: never.

    Returns how many changes there were if the story came to its end, else 0.  ``token`` is that of its claim; ``omit``
    makes the process forget something that the product needs.
    """

    def act() -> None:
        omit()
        count = _cut_at(story, point)
        story.go_on(token)
        story.registry.note("end", changes=count())

    pid = forked(act)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert story.registry.last("power cut"), "the process was killed, and not by the cut"
        return 0
    assert status == 0, "the story failed without a cut"
    return int(story.registry.expect("end")["changes"])


def _cut_at(story: Story, point: int) -> Callable[[], int]:
    """Count changes in this process from now on; a function that tells how many there were."""
    lock, passed = threading.Lock(), [0]

    def counted(call: Callable[..., Any], counts: Callable[..., bool] = lambda *_, **__: True) -> Callable[..., Any]:
        def counting(*args: Any, **words: Any) -> Any:
            if counts(*args, **words):
                with lock:
                    passed[0] += 1
                    if passed[0] == point:
                        story.registry.note("power cut", before=call.__name__)
                        story.disk.cut_power()
                        os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **words)

        return counting

    def makes(_: object, flags: int, *__: Any, **___: Any) -> bool:
        return bool(flags & (os.O_CREAT | os.O_TRUNC))

    os.open = counted(os.open, makes)
    for name in POINTS:
        setattr(os, name, counted(getattr(os, name)))
    for name in KERNEL_CHANGES:
        setattr(kernel, name, counted(getattr(kernel, name)))
    return lambda: passed[0]


def spread(total: int, wanted: int, *, first: int = 1) -> list[int]:
    """At most ``wanted`` of the points 1 to ``total``, evenly apart, the last one always among them."""
    if wanted >= total:
        return list(range(1, total + 1))
    step = total / wanted
    return sorted({min(total, max(1, round(first - 1 + step * n))) for n in range(1, wanted + 1)})
