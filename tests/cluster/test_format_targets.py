"""Targets in a format: the promises hold for an image that QEMU writes as for a raw file."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest
from commands import run_command
from fleet import DEADLINE, MIB, Fleet, alive, files

from blockjobs.model.jobs import OnDamage

pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-nbd"), reason="qemu-utils is not installed: `make tools` as root"
)
KINDS = ["qcow2", "qcow2, compressed", "vmdk", "vmdk, compressed"]


def backup(
    fleet: Fleet, host: str, kind: str, *, mib: int = 8, speed: int = 0, **more: object
) -> tuple[str, str, Path, Path]:
    """Start one backup into an image; run, job id, source, target."""
    form, _, compressed = kind.partition(", ")
    source = fleet.image(host, "source.img", mib)
    os.truncate(source, (mib + 3) * MIB)
    target = {"host": host, "driver": form, "file": {"driver": "file", "filename": f"{fleet.root(host)}/{{run}}.img"}}
    job = {"id": "j", "source": f"{host}:{source}", "target": target, "compress": bool(compressed), **more}
    run = fleet.submit(fleet.plan([job], speed=speed))
    return run, f"{run}.j", source, fleet.root(host) / f"{run}.img"


def qemu_img(*words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["qemu-img", *map(str, words)], capture_output=True, check=False)


def is_copy(target: Path, form: str, source: Path) -> bool:
    """Whether an image holds what a raw file holds, and nothing is wrong with it."""
    whole = qemu_img("check", "-f", form, target)
    assert whole.returncode == 0, whole
    return qemu_img("compare", "-f", form, "-F", "raw", target, source).returncode == 0


def map_of(target: Path, form: str) -> list[dict[str, Any]]:
    return list(json.loads(qemu_img("map", "--output=json", "-f", form, target).stdout))


def server_of(writer: int) -> psutil.Process:
    return next(child for child in psutil.Process(writer).children() if child.name() == "qemu-nbd")


def await_end(server: psutil.Process) -> None:
    """Who talks to nobody any more comes to its end."""
    deadline = monotonic() + DEADLINE
    while alive(server):
        assert monotonic() < deadline, server
        select.select([], [], [], 0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_a_format_is_committed_whole_and_sparse(fleet: Fleet, kind: str) -> None:
    run, _, source, target = backup(fleet, "a", kind)
    fleet.until("RUN_ENDED", run)
    form = kind.partition(",")[0]
    assert is_copy(target, form, source)
    assert not [each for each in map_of(target, form) if each["data"] and each["start"] + each["length"] > 8 * MIB]
    verified = run_command("verify", target)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_verify_names_what_differs_in_an_image_of_a_format(fleet: Fleet) -> None:
    run, _, _, target = backup(fleet, "a", "qcow2")
    fleet.until("RUN_ENDED", run)
    place = next(
        extent for extent in map_of(target, "qcow2") if extent["start"] <= 5 * MIB < extent["start"] + extent["length"]
    )
    with target.open("r+b") as file:
        file.seek(place["offset"] + 5 * MIB - place["start"])
        file.write(bytes(16))
    verified = run_command("verify", target)
    assert verified.returncode == 1
    assert f"bytes {5 * MIB} to {6 * MIB} differ" in verified.stdout


def test_compressed_data_takes_less_room(fleet: Fleet) -> None:
    source = fleet.root("a") / "text.img"
    source.write_bytes(b"all work and no play " * 400_000)
    sizes = {}
    for compress in (False, True):
        target = {
            "host": "a",
            "driver": "qcow2",
            "file": {"driver": "file", "filename": f"{fleet.root('a')}/{{run}}.img"},
        }
        run = fleet.submit(fleet.plan([{"id": "j", "source": f"a:{source}", "target": target}], compress=compress))
        fleet.until("RUN_ENDED", run)
        sizes[compress] = (fleet.root("a") / f"{run}.img").stat().st_size
        assert is_copy(fleet.root("a") / f"{run}.img", "qcow2", source)
    assert sizes[True] * 10 < sizes[False]


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_writer_goes_on_in_its_image_or_begins_it_anew(fleet: Fleet, kind: str) -> None:
    run, job, source, target = backup(fleet, "b", kind, mib=96, speed=24 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_durable("b", job)
    writer = fleet.writer("b", job)
    server = server_of(writer)
    os.kill(writer, signal.SIGKILL)
    await_end(server)
    fleet.until("ATTEMPT_RELEASED", job)
    reached = fleet.job(job).offset
    fleet.until("RUN_ENDED", run)
    assert fleet.job(job).attempts == 2
    assert is_copy(target, kind.partition(",")[0], source)
    anew = kind == "vmdk, compressed"  # what is compressed there is written once
    assert (fleet.job(job).bytes["recopied"] >= reached) == anew


def test_a_server_that_is_killed_fails_the_job_and_leaves_nothing(fleet: Fleet) -> None:
    before = files(fleet.root("c"))
    run, job, source, _ = backup(fleet, "c", "qcow2", mib=24, speed=2 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_offset(job, 2 * MIB)
    server_of(fleet.writer("c", job)).kill()
    fleet.until("RUN_ENDED", run)
    assert fleet.job(job).ret == -5, fleet.job(job)
    assert files(fleet.root("c")) == before | {source.name}


def test_a_frozen_writer_is_killed_and_its_server_gone_before_another_one_writes(fleet: Fleet) -> None:
    run, job, source, target = backup(fleet, "d", "qcow2", mib=60, speed=20 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_offset(job, 20 * MIB)
    zombie = psutil.Process(fleet.writer("d", job))
    server = server_of(zombie.pid)
    zombie.suspend()
    assert fleet.until("ATTEMPT_RELEASED", job).fields["reason"] == "fenced"
    await_end(server)
    fleet.until("RUN_ENDED", run)
    assert is_copy(target, "qcow2", source)


def test_a_group_that_fails_leaves_no_image_of_a_format(fleet: Fleet) -> None:
    fleet.image("a", "source.img", 8)
    before = files(fleet.root("a"))
    image = {"driver": "qcow2", "file": {"driver": "file", "filename": f"{fleet.root('a')}/{{run}}/one.qcow2"}}
    bad = {"driver": "blkdebug", "image": {"driver": "file", "filename": f"{fleet.root('a')}/source.img"},
           "inject-error": [{"sector": 4 * MIB // 512}]}  # fmt: skip
    plan = fleet.plan([
        {"id": "one", "source": f"a:{fleet.root('a')}/source.img", "target": {"host": "a", **image}, "compress": True},
        {"id": "two", "source": {"host": "a", **bad}, "target": f"a:{fleet.root('a')}/{{run}}/two.img"},
    ])  # fmt: skip
    run = fleet.submit(plan)
    fleet.until("RUN_ENDED", run)
    assert [job.ret for job in fleet.jobs(plan.run)] in ([-125, -5], [-5, -125])
    assert files(fleet.root("a")) == before


def test_the_top_layer_alone_is_copied_onto_a_layer_of_the_targets_own(fleet: Fleet) -> None:
    place = fleet.root("a")
    base = fleet.image("a", "base.img", 8)
    top = place / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 3M 100k", top], check=True, capture_output=True)
    file = {"driver": "file", "filename": str(base)}
    source = {"host": "a", "driver": "qcow2", "file": {"driver": "file", "filename": str(top)}, "backing": file}
    thin = {
        "host": "a",
        "driver": "qcow2",
        "file": {"driver": "file", "filename": f"{place}/{{run}}.qcow2"},
        "backing": file,
    }
    run = fleet.submit(fleet.plan([{"id": "j", "source": source, "target": thin, "sync": "top"}]))
    fleet.until("RUN_ENDED", run)
    copy = place / f"{run}.qcow2"
    assert qemu_img("compare", "-f", "qcow2", "-F", "qcow2", copy, top).returncode == 0
    own = sum(extent["length"] for extent in map_of(copy, "qcow2") if extent["depth"] == 0)
    assert own == 128 << 10, "two clusters, and nothing of the layer below"
    told = json.loads((place / f"{run}.qcow2.manifest.json").read_text())
    assert (told["format"], told["digests"]) == ("qcow2", None)


def test_a_mirror_onto_an_image_comes_up_with_its_source(fleet: Fleet) -> None:
    run, job, source, target = backup(fleet, "a", "qcow2", mib=8, type="mirror")
    fleet.until("BLOCK_JOB_READY", job)
    with source.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"changed while it was mirrored")
    fleet.registry.verbs.complete(job)
    fleet.until("RUN_ENDED", run)
    assert is_copy(target, "qcow2", source)


def test_an_image_is_made_like_the_one_that_it_replaces(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ["a"], allow_overwrite=True)
    try:
        place = fleet.root("a")
        source = fleet.image("a", "source.img", 8)
        old = place / "old.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=1M,compat=0.10", old, 8 * MIB)
        target = {"host": "a", "driver": "qcow2", "file": {"driver": "file", "filename": str(old)}}
        job = {"id": "j", "source": f"a:{source}", "target": target, "overwrite": True}
        fleet.until("RUN_ENDED", fleet.submit(fleet.plan([job])))
        told = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", old).stdout)
        assert (told["cluster-size"], told["format-specific"]["data"]["compat"]) == (MIB, "0.10")
        assert is_copy(old, "qcow2", source)
    finally:
        fleet.close()


def test_a_raw_source_that_lies_on_another_is_warned_of_in_the_run_and_in_show(fleet: Fleet) -> None:
    base, top = fleet.image("a", "base.img", 1), fleet.root("a") / "top.img"
    assert qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top).returncode == 0
    run = fleet.submit(
        fleet.plan([{"id": "j", "source": f"a:{top}", "target": f"a:{fleet.root('a')}/{{run}}.img"}])
    )  # fmt: skip
    warning = fleet.until("JOB_WARNING", f"{run}.j").fields["text"]
    assert warning == (
        f"source {top} is copied as raw bytes, and begins as a qcow2 image that lies on '{base}': "
        "WITHOUT THAT, A COPY OF ITS BYTES IS NO BACKUP"
    )
    fleet.until("RUN_ENDED", run)
    assert warning in run_command("show", f"{run}.j", "--redis", fleet.server.url).stdout
    record = json.loads((fleet.root("a") / f"{run}.img.manifest.json").read_text())
    assert record["source_notes"] == [warning]


def test_a_damaged_source_of_a_format_fails_its_job_unless_it_is_only_to_be_reported(fleet: Fleet) -> None:
    disk = fleet.root("a") / "disk.qcow2"
    assert qemu_img("create", "-q", "-f", "qcow2", disk, "4M").returncode == 0
    with disk.open("r+b") as file:
        file.seek(79)
        file.write(b"\1")  # dirty
    source = {"host": "a", "driver": "qcow2", "file": {"driver": "file", "filename": str(disk)}}
    job = {"id": "j", "source": source, "target": f"a:{fleet.root('a')}/{{run}}.img"}
    said = f"{disk} was not closed by its last writer (dirty)"
    run = fleet.submit(fleet.plan([job]))
    fleet.until("RUN_ENDED", run)
    assert fleet.job(f"{run}.j").error == f"source a:{disk} is damaged: {said}"
    run = fleet.submit(fleet.plan([job], on_source_damage=OnDamage.REPORT))
    fleet.until("RUN_ENDED", run)
    assert fleet.job(f"{run}.j").ret == 0
    record = json.loads((fleet.root("a") / f"{run}.img.manifest.json").read_text())
    assert record["source_damage"] == [said]
    assert said in fleet.job(f"{run}.j").warnings


@pytest.mark.parametrize("policy", ["report", "stop"])
def test_a_server_that_is_killed_while_its_job_is_held_is_noticed_at_once(fleet: Fleet, policy: str) -> None:
    run, job, _, _ = backup(fleet, "c", "qcow2", mib=24, speed=2 * MIB, on_target_error=policy)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_offset(job, 2 * MIB)
    fleet.registry.verbs.pause(job)
    fleet.until_true(lambda: fleet.job(job).paused and not fleet.job(job).busy)
    server_of(fleet.writer("c", job)).kill()
    told = fleet.until("", job, lambda event: event.name in ("BLOCK_JOB_ERROR", "BLOCK_JOB_COMPLETED"))
    if told.name == "BLOCK_JOB_COMPLETED":  # it was just being flushed: after a flush that failed no attempt goes on
        assert fleet.job(job).ret == -5
        return
    assert told.fields["action"] == policy
    if policy == "stop":
        assert fleet.job(job).paused, "whoever resumes it is told again"
        fleet.registry.verbs.cancel(job)
    fleet.until("RUN_ENDED", run)
    assert fleet.job(job).ret == (-5 if policy == "report" else -125)
