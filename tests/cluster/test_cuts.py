"""A point in time: every target of a source that is written to is one instant of it, and nothing of a cut is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pytest
from commands import run_command
from fleet import MIB, Fleet, files
from mounts import mounted

from blockjobs.model import errors
from blockjobs.model.ids import Host
from blockjobs.model.jobs import OnChange

# Notes its calls; hangs before it cuts, and fails to remove, while a file says so.
COMMAND = """#!/bin/sh
echo "$1 $(date +%s.%N) $3" >> "$0.calls"
dir=${2%/*}
case $1 in
create)
    while [ -e "$0.hangs" ]; do touch "$0.hanging"; sleep 0.05; done
    cp --reflink=always "$2" "$dir/.snapshot.$3"
    echo "$dir/.snapshot.$3" ;;
remove) [ ! -e "$0.fails" ] || { echo "busy" >&2; exit 5; }
    rm -f "$dir/.snapshot.$3" ;;
esac
"""
THAW_AFTER = 3  # seconds


@contextmanager
def fleet_on(kind: str, place: Path) -> Iterator[Fleet]:
    with mounted(kind, place) as top:
        for name in ("freezer", "snap"):
            (top / name).write_text(COMMAND)
            (top / name).chmod(0o700)
        commands = {"freeze": (f"{top}/freezer",), "snap": (f"{top}/snap",)}
        fleet = Fleet(top, ["a", "b"], commands=commands, thaw_after=THAW_AFTER)
        try:
            yield fleet
        finally:
            fleet.close()


@pytest.fixture(scope="module")
def the_xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_on("xfs", tmp_path_factory.mktemp("xfs")) as fleet:
        yield fleet


@pytest.fixture
def xfs(the_xfs: Fleet) -> Iterator[Fleet]:
    """A fleet whose hosts' images lie on an XFS: whole, no command called, nothing cut; so it is left."""
    the_xfs.mend()
    for path in the_xfs.place.glob("*.calls"):
        path.unlink()
    yield the_xfs
    for path in [*the_xfs.place.glob("*.hangs"), *the_xfs.place.glob("*.fails"), *the_xfs.place.glob("*.hanging")]:
        path.unlink()
    the_xfs.mend()


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
    names = {name for host in fleet.hosts for name in files(fleet.root(host))}
    return {name for name in names if name.endswith(".cut") or ".snapshot." in name}


def calls(fleet: Fleet, name: str) -> list[tuple[str, float]]:
    """What a command was called with, and when."""
    try:
        lines = (fleet.place / f"{name}.calls").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(line.split()[0], float(line.split()[1])) for line in lines]


def blockjobs(fleet: Fleet, *words: str) -> str:
    done = run_command(*words, "--redis", fleet.server.url)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_with_reflink_every_target_is_one_generation_and_without_it_they_mix(xfs: Fleet, long: bool) -> None:
    mib, rounds = (256, 20) if long else (64, 3)
    with Stamper([xfs.root("a") / "stamped.img"], mib) as stamper:
        for _ in range(rounds):
            run = xfs.submit(xfs.plan([job(xfs, "a", "stamped")]))
            ended = xfs.until("RUN_ENDED", run)
            assert ended.fields["failed"] == "0", xfs.jobs(run)[0].error
            assert len(generations(target(xfs, "a", run, "stamped"))) == 1
            told = record(target(xfs, "a", run, "stamped"))
            assert (told["cut"]["how"], told["source_change"]) == ("reflink", "unchanged")
            target(xfs, "a", run, "stamped").unlink()
        slowly = {"speed": mib * MIB // 8, "on_source_change": OnChange.REPORT}
        mixed = xfs.plan([job(xfs, "a", "stamped", snapshot="none", live=True)], **slowly)
        control = xfs.submit(mixed)
        xfs.until_offset(f"{control}.stamped", mib * MIB // 4)
        print(f"\n  {rounds} of {rounds} targets of {mib} MiB are one generation each")
        seen = len(stamper.log[0])
        xfs.until_true(lambda: len(stamper.log[0]) > seen + 1)
        xfs.registry.verbs.set_speed(f"{control}.stamped", 0)
        xfs.until("RUN_ENDED", control)
    mixture = generations(target(xfs, "a", control, "stamped"))
    print(f"  without a cut: {len(mixture)} generations in one target")
    assert len(mixture) > 1
    told = record(target(xfs, "a", control, "stamped"))
    assert (told["cut"], told["source_change"]) == ({"how": "none", "live": True}, "changed")
    assert not cuts(xfs)


def seen(fleet: Fleet, run: str, places: list[tuple[str, str]], stamper: Stamper) -> float:
    """Seconds that the cuts of images that were stamped in step lie apart at least.

    Of every write it is known when it began and ended, and so of each target from when to when its cut was made.
    """
    between = []
    for (host, name), log in zip(places, stamper.log, strict=True):
        (generation,) = generations(target(fleet, host, run, name))
        told = record(target(fleet, host, run, name))["cut"]
        begin, end = log[generation][0], log[generation + 1][1]
        at = datetime.fromisoformat(told["at"]).timestamp()
        assert begin <= at + told["seconds"] + 1e-5, "what is told ends behind the beginning of the write that is in it"
        assert at - 1e-5 <= end, "and begins before the end of the write that is not in it"
        between.append((begin, end))
    return max(begin for begin, _ in between) - min(end for _, end in between)


def test_the_cuts_of_a_group_lie_no_further_apart_than_is_reported(
    xfs: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [("a", "one"), ("a", "two"), ("b", "three")]
    with Stamper([xfs.root(host) / f"{name}.img" for host, name in places], 4) as stamper:
        run = xfs.submit(xfs.plan([job(xfs, host, name) for host, name in places]))
        skew = float(xfs.until("TRANSACTION_CUT", run).fields["skew"])
        assert xfs.until("RUN_ENDED", run).fields["failed"] == "0"
    least = seen(xfs, run, places, stamper)
    assert least <= skew
    for host, name in places:
        assert record(target(xfs, host, run, name))["cut"]["skew"] == pytest.approx(skew, abs=2e-6)
    shown = blockjobs(xfs, "show", f"{run}.three")
    assert "cut:         reflink, at " in shown
    assert "all of its transaction within " in shown
    with capsys.disabled():
        print(f"\n  3 images on 2 hosts: skew {1000 * skew:.2f} ms, {1000 * max(least, 0):.2f} ms of it were seen")


def test_cuts_that_do_lie_apart_are_reported_so(xfs: Fleet) -> None:
    """The control: what the images say themselves is a second, and the report covers it."""
    (xfs.place / "snap.hangs").touch()
    places = [("a", "one"), ("b", "three")]
    jobs = [job(xfs, "a", "one"), job(xfs, "b", "three", snapshot="command:snap")]
    with Stamper([xfs.root(host) / f"{name}.img" for host, name in places], 4) as stamper:
        run = xfs.submit(xfs.plan(jobs))
        xfs.until("JOB_CUT", f"{run}.one")
        xfs.until_true((xfs.place / "snap.hanging").exists)
        xfs.rest(1.5)
        (xfs.place / "snap.hangs").unlink()
        skew = float(xfs.until("TRANSACTION_CUT", run).fields["skew"])
        assert xfs.until("RUN_ENDED", run).fields["failed"] == "0"
    assert 1 < seen(xfs, run, places, stamper) <= skew
    assert not cuts(xfs)


def test_no_member_copies_before_every_member_has_its_cut(xfs: Fleet) -> None:
    (xfs.place / "snap.hangs").touch()
    for host, name in (("a", "early"), ("b", "late")):
        xfs.image(host, f"{name}.img", 2)
    jobs = [job(xfs, "a", "early"), job(xfs, "b", "late", snapshot="command:snap")]
    run = xfs.submit(xfs.plan(jobs))
    xfs.until("JOB_CUT", f"{run}.early")
    xfs.until_true((xfs.place / "snap.hanging").exists)
    assert {str(view.status) for view in xfs.jobs(run)} == {"created"}
    (xfs.place / "snap.hangs").unlink()
    assert xfs.until("RUN_ENDED", run).fields["failed"] == "0"
    order = [(event.name, event.id) for event in xfs.registry.events.all() if event.run == run]
    names = [name for name, _ in order]
    assert names.index("TRANSACTION_CUT") > max(n for n, name in enumerate(names) if name == "JOB_CUT")
    assert names.index("TRANSACTION_CUT") < names.index("ATTEMPT_CLAIMED")


def test_a_source_is_frozen_for_its_cut_and_no_longer(xfs: Fleet) -> None:
    for name in ("data", "log"):
        xfs.image("a", f"{name}.img", 8)
    jobs = [job(xfs, "a", name, options={"quiesce": "freeze"}) for name in ("data", "log")]
    run = xfs.submit(xfs.plan(jobs, speed=4 * MIB))
    cut = xfs.until("JOB_CUT", f"{run}.data")
    assert [word for word, _ in calls(xfs, "freezer")] == ["freeze", "thaw"], "once for both, and over before they copy"
    (_, froze), (_, thawed) = calls(xfs, "freezer")
    begin, end = float(cut.fields["begin"]), float(cut.fields["end"])
    unsure = end - begin  # by the clock of Redis: surely not before, surely not after, so each by as much at the most
    assert froze - unsure <= begin <= end <= thawed + unsure
    assert xfs.until("RUN_ENDED", run).fields["failed"] == "0"
    assert 0 < record(target(xfs, "a", run, "log"))["cut"]["frozen"] < THAW_AFTER


def hung(fleet: Fleet, **options: object) -> str:
    """A run whose source is frozen, and whose cut does not come."""
    (fleet.place / "snap.hangs").touch()
    fleet.image("a", "frozen.img", 4)
    options = {"quiesce": "freeze", **options}
    run = fleet.submit(fleet.plan([job(fleet, "a", "frozen", snapshot="command:snap", options=options)]))
    fleet.until_true((fleet.place / "snap.hanging").exists)
    assert [word for word, _ in calls(fleet, "freezer")] == ["freeze"]
    return run


def test_a_worker_killed_between_freeze_and_thaw_is_thawed_at_once_and_the_run_goes_on(xfs: Fleet) -> None:
    run = hung(xfs)
    killed = time.time()
    xfs.kill("steps@a")
    xfs.until_true(lambda: len(calls(xfs, "freezer")) == 2)
    word, at = calls(xfs, "freezer")[1]
    assert word == "thaw"
    assert at - killed < THAW_AFTER
    xfs.start("steps@a")
    (xfs.place / "snap.hangs").unlink()
    assert xfs.until("RUN_ENDED", run).fields["failed"] == "0"
    assert [word for word, _ in calls(xfs, "freezer")] == ["freeze", "thaw", "freeze", "thaw"], "cut anew"
    assert target(xfs, "a", run, "frozen").read_bytes() == (xfs.root("a") / "frozen.img").read_bytes()
    assert not cuts(xfs)


def test_a_worker_stopped_between_freeze_and_thaw_is_thawed_at_the_deadline_and_its_cut_is_refused(xfs: Fleet) -> None:
    run = hung(xfs)
    froze = calls(xfs, "freezer")[0][1]
    xfs.kill("steps@a", signal.SIGSTOP)
    xfs.until_true(lambda: len(calls(xfs, "freezer")) == 2)
    assert THAW_AFTER - 0.5 < calls(xfs, "freezer")[1][1] - froze < THAW_AFTER + 2
    (xfs.place / "snap.hangs").unlink()
    xfs.kill("steps@a", signal.SIGCONT)
    xfs.until("RUN_ENDED", run)
    assert "the source did not stand still until it was cut" in xfs.jobs(run)[0].error
    assert not cuts(xfs)


@pytest.mark.parametrize("snapshot", ["reflink", "command:snap"])
@pytest.mark.parametrize("end", ["commits", "cancelled", "abandoned"])
def test_a_worker_killed_between_cut_and_clean_leaves_no_cut(xfs: Fleet, end: str, snapshot: str) -> None:
    source = xfs.image("a", "killed.img", 24)
    before = source.read_bytes()
    run = xfs.submit(xfs.plan([job(xfs, "a", "killed", snapshot=snapshot)], speed=2 * MIB))
    name = f"{run}.killed"
    xfs.until("ATTEMPT_CLAIMED", name)
    assert len(cuts(xfs)) == 1
    source.write_bytes(b"another one")
    xfs.until_durable("a", name)
    os.kill(xfs.writer("a", name), signal.SIGKILL)
    xfs.kill("copy@a")
    xfs.kill("steps@a")
    if end != "commits":
        xfs.registry.verbs.cancel(name)
    if end == "abandoned":
        xfs.until("HOST_DOWN", "a")
        xfs.registry.transactions.abandon(Host("a"))
        xfs.until("RUN_ENDED", run)
    assert len(cuts(xfs)) == 1
    xfs.start("steps@a")
    xfs.start("copy@a")
    if end == "commits":
        xfs.registry.verbs.set_speed(name, 0)
    if end != "abandoned":
        xfs.until("RUN_ENDED", run)
    xfs.until_true(lambda: not cuts(xfs))
    assert target(xfs, "a", run, "killed").exists() == (end == "commits")
    if end == "commits":
        assert target(xfs, "a", run, "killed").read_bytes() == before, "of the cut, in both attempts"
        assert record(target(xfs, "a", run, "killed"))["source_change"] == "unchanged"
    xfs.await_up(["a"])


def test_a_cut_that_cannot_be_removed_is_shown_and_tried_again(xfs: Fleet) -> None:
    xfs.image("a", "stuck.img", 2)
    (xfs.place / "snap.fails").touch()
    run = xfs.submit(xfs.plan([job(xfs, "a", "stuck", snapshot="command:snap")]))
    told = xfs.until("JOB_UNSETTLED", f"{run}.stuck").fields["error"]
    assert "the cut of" in told
    assert "is not removed: command 'snap' on remove: ended with exit code 5: busy" in told
    assert "committed, not cleaned up: the cut of" in blockjobs(xfs, "show", f"{run}.stuck")
    assert target(xfs, "a", run, "stuck").exists()
    (xfs.place / "snap.fails").unlink()
    assert xfs.until("RUN_ENDED", run).fields["failed"] == "0"
    assert not cuts(xfs)


def test_a_cut_that_is_written_to_fails_its_job(xfs: Fleet) -> None:
    xfs.image("a", "touched.img", 24)
    run = xfs.submit(xfs.plan([job(xfs, "a", "touched")], speed=MIB, on_source_change=OnChange.REPORT))
    xfs.until("ATTEMPT_CLAIMED", f"{run}.touched")
    (name,) = cuts(xfs)
    with (xfs.root("a") / name).open("r+b") as file:
        file.write(b"x")
    with suppress(errors.VerbRefused):  # it has seen the change already
        xfs.registry.verbs.set_speed(f"{run}.touched", 0)
    xfs.until("RUN_ENDED", run)
    assert "the cut of source" in xfs.jobs(run)[0].error
    assert not cuts(xfs)


def test_btrfs_cuts_as_well_also_what_it_does_not_copy_on_write(tmp_path: Path) -> None:
    with fleet_on("btrfs", tmp_path / "btrfs") as fleet:
        plain = fleet.root("a") / "nocow.img"
        plain.touch()
        subprocess.run(["chattr", "+C", str(plain)], check=True)
        plain.write_bytes(os.urandom(MIB))
        before = plain.read_bytes()
        with Stamper([fleet.root("b") / "stamped.img"], 16):
            run = fleet.submit(fleet.plan([job(fleet, "b", "stamped"), job(fleet, "a", "nocow")], speed=8 * MIB))
            fleet.until("ATTEMPT_CLAIMED", f"{run}.stamped")
            plain.write_bytes(b"another one")
            ended = fleet.until("RUN_ENDED", run)
        assert ended.fields["failed"] == "0", [view.error for view in fleet.jobs(run)]
        assert len(generations(target(fleet, "b", run, "stamped"))) == 1
        assert target(fleet, "a", run, "nocow").read_bytes() == before
        assert record(target(fleet, "a", run, "nocow"))["cut"]["how"] == "reflink"
        assert not cuts(fleet)
