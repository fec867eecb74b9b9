"""A mirror follows its source until it is told to complete, and what it leaves is one point in time of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from commands import Ended, run_command
from fleet import MIB, Fleet, files

from blockjobs.model import errors
from blockjobs.model.jobs import OnError
from blockjobs.model.mirrors import SIZES_DIFFER
from blockworker.targets import manifest

BLOCK = 4096


def mirror(
    fleet: Fleet, host: str, *, mib: int = 12, name: str = "live.img", blank: bool = False, **options: object
) -> tuple[str, str, Path, Path]:
    """Start a mirror of a fresh image; run, job id, source, target."""
    source = fleet.image(host, name, 0 if blank else mib)
    os.truncate(source, 2 * mib * MIB)  # half of it is a hole
    job: dict[str, object] = {
        "id": "m", "type": "mirror", "source": f"{host}:{source}",
        "target": f"{host}:{fleet.root(host)}/{{run}}.img", **options,
    }  # fmt: skip
    run = fleet.submit(fleet.plan([job]))
    return run, f"{run}.m", source, fleet.root(host) / f"{run}.img"


def verified(target: Path) -> bool:
    """Whether the digests beside an image are of what it holds."""
    return not manifest.verify_image(str(target), manifest.load_manifest(f"{target}.manifest.json")).bad


def write(path: Path, offset: int, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


class Guest(threading.Thread):
    """Writes rounds: one number, one more each round, to every one of some blocks, in their order."""

    def __init__(self, path: Path, blocks: int, *, rest: float = 0.0) -> None:
        super().__init__()
        self._path, self._blocks, self._rest = path, blocks, rest
        self._step = path.stat().st_size // blocks // BLOCK * BLOCK
        self._stop_it = threading.Event()

    def run(self) -> None:
        fd, number = os.open(self._path, os.O_WRONLY), 0
        freeze, frozen = self._path.with_suffix(".freeze"), self._path.with_suffix(".frozen")
        try:
            while not self._stop_it.wait(self._rest):
                if freeze.exists():
                    frozen.touch()
                    continue
                frozen.unlink(missing_ok=True)
                number += 1
                for block in range(self._blocks):
                    os.pwrite(fd, number.to_bytes(8, "little") * (BLOCK // 8), block * self._step)
        finally:
            os.close(fd)

    def rounds(self, image: Path) -> list[int]:
        """The number in each block of an image."""
        content = image.read_bytes()
        return [int.from_bytes(content[n * self._step :][:8], "little") for n in range(self._blocks)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_it.set()
        self.join()


def test_a_mirror_gets_ready_follows_and_completes(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "a")
    fleet.until("BLOCK_JOB_READY", job)
    assert fleet.job(job).status == "ready"
    with pytest.raises(errors.Refused):
        fleet.registry.verbs.finalize(job)
    write(source, 5 * MIB + 512, b"written while ready" * 1000)
    write(source, 20 * MIB, b"in a hole")
    fleet.until_offset(job, 24 * MIB + 1)
    assert fleet.job(job).offset == fleet.job(job).len
    write(source, 7 * MIB, b"the last word")
    fleet.registry.verbs.complete(job)
    ended = fleet.until("BLOCK_JOB_COMPLETED", job)
    assert ended.fields["type"] == "mirror"
    assert ended.fields["offset"] == ended.fields["len"]
    assert "error" not in ended.fields
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks * 1.02
    assert verified(target)


def test_the_manifest_counts_the_bulk_and_every_pass(fleet: Fleet) -> None:
    run, job, _, target = mirror(fleet, "a")
    fleet.until("BLOCK_JOB_READY", job)
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    counts = manifest.load_manifest(f"{target}.manifest.json")["bytes"]
    assert counts["written"] == 12 * MIB
    assert counts["read"] >= 2 * 12 * MIB
    assert counts["recopied"] == 0


def test_a_ready_mirror_that_is_cancelled_softly_completes(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "b")
    fleet.until("BLOCK_JOB_READY", job)
    write(source, 0, b"before the cancel")
    fleet.registry.verbs.cancel(job, force=False)
    assert fleet.until("RUN_ENDED", run).fields["cancelled"] == "0"
    assert target.read_bytes() == source.read_bytes()


def test_a_ready_mirror_that_is_cancelled_by_force_leaves_nothing(fleet: Fleet) -> None:
    run, job, source, _ = mirror(fleet, "c", name="forced.img")
    before = files(fleet.root("c"))
    fleet.until("BLOCK_JOB_READY", job)
    fleet.registry.verbs.cancel(job)
    fleet.until("BLOCK_JOB_CANCELLED", job)
    fleet.until("RUN_ENDED", run)
    assert {name for name in files(fleet.root("c")) if run in name} == set()
    assert source.exists()
    assert before


def test_a_paused_mirror_is_on_standby_and_remembers_complete(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "a", name="standby.img")
    fleet.until("BLOCK_JOB_READY", job)
    fleet.registry.verbs.pause(job)
    fleet.until_status(job, "standby")
    offset = fleet.job(job).offset
    write(source, 3 * MIB, b"while it stands by")
    with pytest.raises(errors.Refused, match="currently paused"):
        fleet.registry.verbs.cancel(job, force=False)
    fleet.registry.verbs.complete(job)
    fleet.rest(0.3)
    assert (fleet.job(job).status, fleet.job(job).offset) == ("standby", offset)
    fleet.registry.verbs.resume(job)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()


def test_a_mirror_killed_between_its_passes_compares_with_its_target_and_stays_ready(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "b", name="killed.img")
    fleet.until("BLOCK_JOB_READY", job)
    fleet.registry.verbs.pause(job)
    fleet.until_status(job, "standby")
    pid = fleet.writer("b", job)
    staging = next(fleet.root("b").glob(f".{run}.img.*.part"))
    os.kill(pid, signal.SIGKILL)
    fleet.until("ATTEMPT_RELEASED", job)
    # As after a power cut that took the data and left the digests: only the target itself tells.
    write(staging, 2 * MIB, bytes(MIB))
    write(staging, 22 * MIB, b"not of the source")
    write(source, 4 * MIB, b"nobody looked")
    fleet.registry.verbs.resume(job)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()
    assert verified(target)


def test_what_is_written_meanwhile_does_not_fail_a_mirror_and_its_copy_is_one_instant(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "c", mib=4, name="guest.img", speed=20 * MIB)
    with Guest(source, blocks=4):
        fleet.until("MIRROR_NOT_CONVERGING", job)
        view = fleet.job(job)
        assert view.status == "running"
        assert min(view.diverging) > 0
        assert view.offset <= view.len
    fleet.until("BLOCK_JOB_READY", job)
    assert fleet.job(job).diverging == (0, 0)
    fleet.registry.verbs.set_speed(job, 0)
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()


def test_a_mirror_over_an_image_of_another_size_fails_as_in_qemu(fleet: Fleet) -> None:
    fleet.image("d", "small.img", 1)
    fleet.image("d", "large.img", 2)
    root = fleet.root("d")
    job: dict[str, object] = {
        "id": "m", "type": "mirror", "overwrite": True,
        "source": f"d:{root}/small.img", "target": f"d:{root}/large.img",
    }  # fmt: skip
    run = fleet.submit(fleet.plan([job]))
    ended = fleet.until("BLOCK_JOB_COMPLETED", f"{run}.m")
    assert (ended.fields["error"], ended.fields["len"], ended.fields["offset"]) == (SIZES_DIFFER, "0", "0")
    fleet.until("RUN_ENDED", run)
    assert (root / "large.img").stat().st_size == 2 * MIB


@pytest.mark.parametrize("size", [0, 1025 << 10, 4097])
def test_lengths_that_are_no_multiple_of_anything(fleet: Fleet, size: int) -> None:
    run, job, source, target = None, None, fleet.root("d") / f"odd{size}.img", None
    source.write_bytes(os.urandom(size))
    spec: dict[str, object] = {
        "id": "m", "type": "mirror", "source": f"d:{source}", "target": f"d:{fleet.root('d')}/{{run}}.img",
    }  # fmt: skip
    run = fleet.submit(fleet.plan([spec]))
    job, target = f"{run}.m", fleet.root("d") / f"{run}.img"
    ready = fleet.until("BLOCK_JOB_READY", job)
    assert ready.fields["offset"] == ready.fields["len"] == str(size)
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()


def test_sync_none_is_ready_with_nothing_and_copies_what_is_written_from_then_on(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "d", mib=4, name="none.img", sync="none")
    ready = fleet.until("BLOCK_JOB_READY", job)
    assert (ready.fields["offset"], ready.fields["len"]) == ("0", "0")
    write(source, 2 * MIB, b"new")
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    content = target.read_bytes()
    assert content[2 * MIB : 3 * MIB] == source.read_bytes()[2 * MIB : 3 * MIB]
    assert not any(content[: 2 * MIB])
    assert manifest.load_manifest(f"{target}.manifest.json")["digests"] is None, "it is no copy of anything"


@pytest.mark.parametrize("side", ["source", "target"])
def test_an_error_in_a_pass_stops_the_job_and_resume_goes_on(fleet: Fleet, side: str) -> None:
    source = fleet.image("a", "sick.img", 4)
    target = fleet.root("a") / f"sick-{side}.img"
    # The second write of this sector: the first is of the bulk copy, where the rule meets another one.
    rules = [{"iotype": "read" if side == "source" else "write", "errno": 28 if side == "target" else 5,
              "sector": 2 * MIB // 512, "once": True}]  # fmt: skip
    volumes: dict[str, object] = {"source": f"a:{source}", "target": f"a:{target}"}
    path = source if side == "source" else target
    volumes[side] = {"driver": "blkdebug", "host": "a", "image": {"driver": "file", "filename": str(path)},
                     "inject-error": rules}  # fmt: skip
    policies = {"on_source_error": OnError.STOP, "on_target_error": OnError.ENOSPC}
    run = fleet.submit(fleet.plan([{"id": "m", "type": "mirror", **volumes, **policies}]))
    job = f"{run}.m"
    fleet.until_status(job, "paused")
    assert fleet.job(job).io_status == ("failed" if side == "source" else "nospace")
    fleet.registry.verbs.resume(job)
    fleet.until("BLOCK_JOB_READY", job)
    write(source, 0, b"x")
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()


def test_what_complete_leaves_is_one_instant_of_a_source_that_is_written_to(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "b", mib=4, name="bursts.img", blank=True)
    with Guest(source, blocks=8, rest=0.4) as guest:
        fleet.until("BLOCK_JOB_READY", job)
        fleet.until_offset(job, 8 * MIB + 1)  # it follows
        asked = guest.rounds(source)
        fleet.registry.verbs.complete(job)
        fleet.until("RUN_ENDED", run)
        rounds = guest.rounds(target)
    assert rounds == sorted(rounds, reverse=True), "a later block is newer than an earlier one"
    assert rounds[0] - rounds[-1] <= 1
    assert rounds[-1] >= asked[-1], "older than the request"
    assert verified(target)


@pytest.fixture
def freezing(fleet: Fleet) -> Iterator[Fleet]:
    """Host d allows a command that makes a guest stand still."""
    script = fleet.place / "freeze-guest"
    script.write_text("""#!/bin/sh
base=${2%.img}
case $1 in
freeze) touch $base.freeze; while [ ! -e $base.frozen ]; do :; done ;;
thaw) rm -f $base.freeze ;;
esac
echo $1 >> $base.calls
""")
    script.chmod(0o700)
    config = fleet.place / "d.toml"
    before = config.read_text()
    config.write_text(f'{before}\n[commands]\nguest = ["{script}"]\n')
    for name in ("steps@d", "copy@d"):
        fleet.restart(name)
    fleet.await_up(["d"])
    yield fleet
    config.write_text(before)


def test_a_guest_that_never_rests_stands_still_for_the_last_pass(freezing: Fleet) -> None:
    fleet = freezing
    run, job, source, target = mirror(fleet, "d", mib=4, name="busy.img", blank=True, options={"quiesce": "guest"})
    with Guest(source, blocks=8) as guest:
        fleet.until_all({"MIRROR_NOT_CONVERGING", "BLOCK_JOB_READY"}, job)  # ready at once if it misses the first pass
        fleet.registry.verbs.complete(job)
        fleet.until("RUN_ENDED", run)
        rounds = guest.rounds(target)
        assert not source.with_suffix(".freeze").exists(), "it goes on"
    assert len(set(rounds)) == 1, "frozen between two rounds"
    assert source.with_suffix(".calls").read_text().split() == ["freeze", "thaw"]
    assert verified(target)


def test_passes_pause_quickly_and_obey_the_speed_limit(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "c", mib=16, name="slow.img", speed=8 * MIB)
    fleet.until_offset(job, 32 * MIB)  # bulk is done: what goes on now is the first pass, two seconds of it
    for _ in range(3):
        fleet.registry.verbs.pause(job)
        held = fleet.until("JOB_HELD", job)
        paused = fleet.until("JOB_STATUS_CHANGE", job, lambda event: event.fields["status"] in ("paused", "standby"))
        assert paused.at - held.at < 1.0
        read = fleet.job(job).bytes["read"]
        fleet.rest(0.2)
        assert fleet.job(job).bytes["read"] == read
        fleet.registry.verbs.resume(job)
        fleet.until("JOB_STATUS_CHANGE", job, lambda event: event.fields["status"] in ("running", "ready"))
    view = fleet.job(job)
    assert view.bytes["read"] < 32 * MIB, "the pass is limited as the copy is"
    fleet.registry.verbs.set_speed(job, 0)
    fleet.until("BLOCK_JOB_READY", job)
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()


def test_a_hold_right_behind_the_end_of_another_is_acknowledged_as_well(fleet: Fleet) -> None:
    run, job, _, _ = mirror(fleet, "c", mib=16, name="held.img", speed=MIB)
    fleet.until_offset(job, MIB)
    fleet.registry.verbs.pause(job)
    fleet.until_status(job, "paused")
    for _ in range(30):
        fleet.registry.verbs.resume(job)
        fleet.until_status(job, "running")
        fleet.registry.verbs.pause(job)
        held = fleet.until("JOB_HELD", job)
        assert fleet.until_status(job, "paused").at - held.at < 5.0
    fleet.registry.verbs.cancel(job, force=True)
    fleet.until("RUN_ENDED", run)


def test_a_mirror_killed_in_its_bulk_goes_on_and_its_offset_never_goes_down(fleet: Fleet) -> None:
    run, job, source, target = mirror(fleet, "b", mib=40, name="storm.img", speed=30 * MIB)
    seen = []
    for least in (10 * MIB, 30 * MIB):
        fleet.until_offset(job, least)
        seen.append(fleet.job(job).offset)
        os.kill(fleet.writer("b", job), signal.SIGKILL)
        fleet.until("ATTEMPT_RELEASED", job)
        seen.append(fleet.job(job).offset)
        fleet.until("ATTEMPT_CLAIMED", job)
        seen.append(fleet.job(job).offset)
    fleet.registry.verbs.set_speed(job, 0)
    ready = fleet.until("BLOCK_JOB_READY", job)
    seen.append(int(ready.fields["offset"]))
    assert seen == sorted(seen)
    assert ready.fields["offset"] == ready.fields["len"]
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    assert target.read_bytes() == source.read_bytes()
    assert verified(target)


def test_a_soft_cancel_before_it_is_ready_is_a_cancel(fleet: Fleet) -> None:
    run, job, _, target = mirror(fleet, "c", mib=20, name="early.img", speed=4 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    with pytest.raises(errors.VerbRefused):
        fleet.registry.verbs.complete(job)
    fleet.registry.verbs.cancel(job, force=False)
    fleet.until("BLOCK_JOB_CANCELLED", job)
    fleet.until("RUN_ENDED", run)
    assert not target.exists()
    assert not [name for name in files(fleet.root("c")) if run in name]


def test_the_command_line_mirrors_and_completes(fleet: Fleet) -> None:
    source, target = fleet.image("a", "typed.img", 3), fleet.root("a") / "typed-copy.img"

    def blockjobs(*words: str) -> Ended:
        return run_command(*words, "--redis", fleet.server.url)

    refused = blockjobs("mirror", f"a:{source}", f"a:{target}", "--granularity", "3000")
    assert (refused.returncode, refused.stderr) == (2, "blockjobs: Parameter 'granularity' expects a power of 2\n")
    fleet.seq = fleet.registry.events.last()
    started = blockjobs("mirror", f"a:{source}", f"a:{target}", "--id", "typed", "--granularity", "64KiB", "--detach")
    assert started.returncode == 0, started.stderr
    fleet.until("BLOCK_JOB_READY", "typed")
    assert "ready: waits for complete: blockjobs complete typed" in blockjobs("show", "typed").stdout
    assert blockjobs("complete", "typed").stdout == "typed: completing\n"
    assert blockjobs("wait", "typed").returncode == 0
    assert target.read_bytes() == source.read_bytes()
