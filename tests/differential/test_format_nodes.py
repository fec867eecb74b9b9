"""Images of a format beyond QEMU's own cases: what is the same on both servers, and what only ours promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from images import NEEDED, Image
from iotest import MIB, SLOW, Bench
from stages import Stage

pytestmark = NEEDED
SIZE = 4 * MIB
CLUSTER = 65536
EIO, ENOSPC = 5, 28
JOB = "job"
JOBS = pytest.mark.parametrize("command", ["blockdev-backup", "blockdev-mirror"])


def full(bench: Bench, name: str) -> Image:
    """A raw image of random bytes."""
    image = Image(bench.place / name)
    image.path.write_bytes(os.urandom(SIZE))
    return image


def layer(bench: Bench, name: str, below: Image | None, form: str = "qcow2", **options: object) -> Image:
    return Image.create(bench.place / name, form, SIZE, below, **options)


def source(bench: Bench) -> Image:
    """The node ``source``: a raw image, and two clusters on it."""
    image = layer(bench, "source", full(bench, "back"))
    for n in (MIB, 3 * MIB):
        image.write(n, CLUSTER)
    bench.node("source", **image.keys)
    return image


def target(bench: Bench, below: Image | None = None) -> Image:
    """The node ``target``, full of something else."""
    image = layer(bench, "target", below)
    image.write(0, SIZE, pattern=0x5A)
    bench.node("target", **image.keys)
    return image


def words(**more: object) -> dict[str, object]:
    return {"job_id": JOB, "device": "source", "target": "target", "sync": "full", **more}


def end(bench: Bench, command: str, error: str = "") -> None:
    if command.endswith("mirror") and not error:
        bench.complete_and_wait(JOB)
    else:
        bench.wait_until_completed(JOB, error)


def closed(bench: Bench, *names: str) -> None:
    """The original writes what it has in its caches."""
    for name in names:
        bench.remove(name)


# --- on both servers ------------------------------------------------------------------------------------


@JOBS
@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_the_top_of_two_layers_is_all_that_is_copied(bench: Bench, command: str, form: str) -> None:
    top = source(bench)
    below = Image(bench.place / "back").converted(bench.place / "below", form)  # a vmdk lies on vmdks only
    image = layer(bench, "target", below, form)
    bench.node("target", **image.keys)
    bench.ok(command, **words(sync="top"))
    end(bench, command)
    closed(bench, "target", "source")
    assert image.own() == [(MIB, CLUSTER), (3 * MIB, CLUSTER)]
    assert image.same(top)


@pytest.mark.parametrize("command", ["drive-backup", "drive-mirror"])
@pytest.mark.parametrize("mode", ["existing", "absolute-paths"])
def test_a_file_for_the_top_lies_on_the_layer_below(bench: Bench, command: str, mode: str) -> None:
    top = source(bench)
    image = Image(bench.place / "target", "qcow2")
    if mode == "existing":
        layer(bench, "target", top.below)
    bench.ok(command, **words(target=str(image.path), format="qcow2", mode=mode, sync="top"))
    end(bench, command)
    assert image.own() == [(MIB, CLUSTER), (3 * MIB, CLUSTER)]
    assert image.info()["backing-filename"] == str(bench.place / "back")
    assert image.same(top)


@JOBS
@pytest.mark.parametrize("errno", [EIO, ENOSPC])
@pytest.mark.parametrize("policy", ["report", "ignore", "stop", "enospc"])
def test_an_image_that_cannot_be_written_meets_the_policy(bench: Bench, command: str, policy: str, errno: int) -> None:
    top, image = source(bench), target(bench)
    bench.fault("faulty", "target", "write", errno)
    bench.ok(command, **words(target="faulty", on_target_error=policy))
    stops = policy == "stop" or (policy == "enospc" and errno == ENOSPC)
    data = bench.event("BLOCK_JOB_ERROR", job=JOB)
    action = "stop" if stops else "ignore" if policy == "ignore" else "report"
    assert (data["operation"], data["action"]) == ("write", action)
    if stops:
        bench.until(JOB, "paused")
        assert bench.job(JOB)["io-status"] == ("nospace" if errno == ENOSPC else "failed")
        bench.ok("block-job-resume", device=JOB)
    end(bench, command, error=os.strerror(errno) if action == "report" else "")
    closed(bench, "faulty", "target", "source")
    image.check()
    assert image.same(top) is (action != "report")


@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_an_image_of_another_format_is_not_opened(bench: Bench, form: str) -> None:
    other = layer(bench, "other", None, "vmdk" if form == "qcow2" else "qcow2")
    text = bench.refused("blockdev-add", node_name="n", **{**other.keys, "driver": form})
    assert text in ("invalid VMDK image descriptor", f"Could not open '{other.path}': Image is not in {form} format",
                    "Image is not in qcow2 format")  # fmt: skip


def test_compression_of_what_cannot_be_compressed_is_refused(bench: Bench) -> None:
    source(bench)
    bench.image("target", SIZE)
    text = bench.refused("blockdev-backup", **words(compress=True))
    assert text.startswith("Compression is not supported for this drive")
    bench.assert_no_active_block_jobs()


# --- on ours --------------------------------------------------------------------------------------------


def test_a_layer_that_an_image_names_is_not_followed(fleet: Bench) -> None:
    """What a guest wrote into its disk would choose the file that is read."""
    image = layer(fleet, "source", full(fleet, "back"))
    alone: dict[str, Any] = {**image.keys}
    del alone["backing"]
    assert fleet.refused("blockdev-add", node_name="source", **alone) == (
        f"Could not open '{image.path}': {image.path} lies on '{fleet.place / 'back'}', which is not followed: "
        "'backing' was expected, its volume or null"
    )
    fleet.node("source", **alone, backing=None)
    fleet.remove("source")
    fleet.node("source", **image.keys)


@pytest.mark.parametrize("backing", [{"driver": "null-co", "size": SIZE}, {"driver": "blkdebug"}])
def test_a_layer_that_is_no_file_is_not_put_in_the_place_of_one(fleet: Bench, backing: dict[str, object]) -> None:
    back = full(fleet, "back")
    image = layer(fleet, "source", back)
    if backing["driver"] == "blkdebug":
        backing = {**backing, "image": back.keys}
    text = fleet.refused("blockdev-add", **{**image.keys, "node_name": "source", "backing": backing})
    assert text.endswith("'backing' was expected, a file, a device, or an image in one")


@JOBS
def test_a_cancelled_job_leaves_an_image_byte_for_byte_as_it_was(fleet: Bench, command: str) -> None:
    source(fleet)
    before = target(fleet).path.read_bytes()
    fleet.ok(command, **words(speed=SLOW))
    fleet.until(JOB, "running")
    fleet.cancel_and_wait(JOB, force=True)
    assert (fleet.place / "target").read_bytes() == before
    assert sorted(path.name for path in fleet.place.iterdir()) == ["back", "source", "target"]


@JOBS
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_failing_job_leaves_an_image_byte_for_byte_as_it_was(fleet: Bench, command: str, side: str) -> None:
    source(fleet)
    before = target(fleet).path.read_bytes()
    fleet.fault("faulty", side, "read" if side == "source" else "write", EIO)
    fleet.ok(command, **words(**{"device" if side == "source" else "target": "faulty"}))
    fleet.wait_until_completed(JOB, error=os.strerror(EIO))
    assert (fleet.place / "target").read_bytes() == before
    assert sorted(path.name for path in fleet.place.iterdir()) == ["back", "source", "target"]


def test_a_group_with_an_image_of_a_format_aborts_whole(fleet: Bench) -> None:
    source(fleet)
    before = target(fleet).path.read_bytes()
    fleet.image("a", SIZE, fill=True)
    other = fleet.image("b", SIZE, fill=True).read_bytes()
    fleet.fault("bad", "a", "read", EIO, offset=2 * MIB)
    jobs = [("j0", "source", "target", 0), ("j1", "bad", "b", SLOW)]
    actions = [
        {"type": "blockdev-backup",
         "data": {"job-id": job, "device": device, "target": to, "sync": "full", "speed": speed}}
        for job, device, to, speed in jobs
    ]  # fmt: skip
    fleet.ok("transaction", actions=actions, properties={"completion-mode": "grouped"})
    fleet.until("j0", "waiting")
    fleet.ok("block-job-set-speed", device="j1", speed=0)
    fleet.until("j0", "null")
    assert (fleet.place / "target").read_bytes() == before
    assert (fleet.place / "b").read_bytes() == other


def test_an_image_of_a_format_is_not_resized(fleet: Bench) -> None:
    image = layer(fleet, "source", None)
    fleet.node("source", **image.keys)
    text = fleet.refused("block_resize", node_name="source", size=2 * SIZE)
    assert text == "Image format driver does not support resize"
    assert image.info()["virtual-size"] == SIZE


@pytest.fixture
def guest(their_stage: Stage, tmp_path: Path) -> Iterator[Bench]:
    """A program that has images open, as a VM has."""
    bench = Bench(their_stage, f"{tmp_path.name}-guest")
    yield bench
    bench.close()


def test_what_a_program_writes_is_not_read(fleet: Bench, guest: Bench) -> None:
    """A guest keeps parts of its image in memory: what lies in the file is none."""
    image = layer(fleet, "source", None)
    guest.node("source", **image.keys)
    text = fleet.refused("blockdev-add", node_name="source", **image.keys)
    assert text == f"Could not open '{image.path}': Failed to get shared \"write\" lock"
    guest.remove("source")
    fleet.node("source", **image.keys)


def test_what_a_job_reads_is_not_opened_by_a_program_that_writes(fleet: Bench, guest: Bench) -> None:
    top = source(fleet)
    image = target(fleet)
    fleet.ok("blockdev-mirror", **words())
    fleet.wait_ready(JOB)
    assert "lock" in guest.refused("blockdev-add", node_name="source", **top.keys)
    fleet.complete_and_wait(JOB, ready=True)
    guest.node("source", **top.keys)
    assert image.same(top)
