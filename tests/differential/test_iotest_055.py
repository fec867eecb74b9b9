"""Backup as QEMU's iotest 055 has it, black-box: each case by its name there; the source is slow instead of frozen.

A case that is there once for each command has the command as its parameter.  ``docs/qmp-cases.md`` says which case is
played where, and which cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from images import NEEDED, Image
from iotest import MIB, SLOW, Bench

SIZE = 4 * MIB
JOB = "drive0"


@dataclass(frozen=True)
class Backup:
    """A patterned source and a target of its size, and the command that is to copy it."""

    bench: Bench
    command: str
    form: str = "raw"  # of the target

    def words(self, **more: object) -> dict[str, object]:
        """The command's arguments; a target is a node for blockdev-backup, a file for drive-backup."""
        known = {"job_id": JOB, "device": "drive0", "target": "target", "sync": "full", **more}
        if self.command == "drive-backup":
            known = {"format": self.form, "mode": "existing", **known}
            known["target"] = str(self.bench.place / str(known["target"]))
        return known

    def start(self, **more: object) -> None:
        self.bench.ok(self.command, **self.words(**more))

    def refused(self, **more: object) -> None:
        self.bench.refused(self.command, **self.words(**more))
        self.bench.assert_no_active_block_jobs()

    def actions(self, **more: object) -> list[dict[str, object]]:
        """The command as the only action of a transaction."""
        data = {name.replace("_", "-"): value for name, value in self.words(**more).items()}
        return [{"type": self.command, "data": data}]

    def transaction_refused(self, **more: object) -> None:
        self.bench.refused("transaction", actions=self.actions(**more))
        self.bench.assert_no_active_block_jobs()


@pytest.fixture(params=["blockdev-backup", "drive-backup"])
def backup(bench: Bench, request: pytest.FixtureRequest) -> Backup:
    bench.image("drive0", SIZE, fill=True)
    bench.image("target", SIZE)
    if request.param == "drive-backup":
        bench.remove("target")  # its file is what is meant
    return Backup(bench, request.param)


BLOCKDEV = pytest.mark.parametrize("backup", ["blockdev-backup"], indirect=True)
DRIVE = pytest.mark.parametrize("backup", ["drive-backup"], indirect=True)
NOT_FOUND = pytest.mark.parametrize(
    "wrong",
    [{"device": "nonexistent"}, {"target": "nonexistent"}, {"device": "nonexistent", "target": "nonexistent"}],
    ids=["device", "target", "both"],
)  # with drive-backup a target that is not found is test_image_not_found


class TestSingleDrive:
    def test_cancel(self, backup: Backup) -> None:
        backup.start(speed=SLOW)
        backup.bench.until(JOB, "running")
        assert backup.bench.cancel_and_wait(JOB)["type"] == "backup"

    def test_pause(self, backup: Backup) -> None:
        backup.start(speed=SLOW)
        backup.bench.until(JOB, "running")
        backup.bench.pause_job(JOB)
        backup.bench.ok("block-job-set-speed", device=JOB, speed=0)
        backup.bench.ok("block-job-resume", device=JOB)
        backup.bench.wait_until_completed(JOB)
        assert backup.bench.same("drive0", "target")

    @BLOCKDEV
    @pytest.mark.parametrize("node", ["drive0", "target"], ids=["test_source_resize", "test_target_resize"])
    def test_resize(self, backup: Backup, node: str) -> None:
        bench = backup.bench
        backup.start(auto_finalize=False)
        bench.event("BLOCK_JOB_PENDING", job=JOB)
        bench.refused("block_resize", device=node, size=65536)
        bench.refused("block_resize", node_name=node, size=65536)
        bench.ok("job-finalize", id=JOB)
        bench.wait_until_completed(JOB)
        assert (bench.place / node).stat().st_size == SIZE
        assert bench.same("drive0", "target")

    @BLOCKDEV
    @pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE], ids=["test_small_target", "test_large_target"])
    def test_another_size(self, backup: Backup, size: int) -> None:
        backup.bench.ok("block_resize", node_name="target", size=size)
        backup.refused()

    @DRIVE
    @pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE])
    def test_existing_of_another_size(self, backup: Backup, size: int) -> None:
        backup.bench.image("other", size)
        backup.refused(target="other")

    @NOT_FOUND
    def test_device_not_found(self, backup: Backup, wrong: dict[str, object]) -> None:
        backup.refused(**wrong)

    @DRIVE
    def test_image_not_found(self, backup: Backup) -> None:
        backup.refused(target="none", mode="existing")

    @DRIVE
    @pytest.mark.parametrize("mode", ["absolute-paths", "existing"])
    def test_invalid_format(self, backup: Backup, mode: str) -> None:
        backup.refused(format="spaghetti-noodles", mode=mode)

    def test_target_is_source(self, backup: Backup) -> None:
        backup.refused(target="drive0")


class TestSetSpeed:
    def test_set_speed(self, backup: Backup) -> None:
        backup.start(auto_finalize=False)
        backup.bench.event("BLOCK_JOB_PENDING", job=JOB)
        assert backup.bench.job(JOB)["speed"] == 0
        backup.bench.cancel_and_wait(JOB)
        backup.start(speed=SLOW)
        backup.bench.until(JOB, "running")
        backup.bench.ok("job-pause", id=JOB)
        backup.bench.ok("block-job-set-speed", device=JOB, speed=8 * MIB)
        assert backup.bench.job(JOB)["speed"] == 8 * MIB
        backup.bench.cancel_and_wait(JOB, force=True)
        backup.start(speed=4 * MIB, auto_finalize=False)
        assert backup.bench.job(JOB)["speed"] == 4 * MIB
        backup.bench.cancel_and_wait(JOB)

    def test_set_speed_invalid(self, backup: Backup) -> None:
        backup.refused(speed=-1)
        backup.start(speed=SLOW)
        backup.bench.refused("block-job-set-speed", device=JOB, speed=-1)
        backup.bench.until(JOB, "running")
        backup.bench.cancel_and_wait(JOB)


class TestSingleTransaction:
    def test_cancel(self, backup: Backup) -> None:
        backup.bench.ok("transaction", actions=backup.actions(speed=SLOW))
        backup.bench.until(JOB, "running")
        backup.bench.cancel_and_wait(JOB)

    def test_pause(self, backup: Backup) -> None:
        backup.bench.ok("transaction", actions=backup.actions(speed=SLOW))
        backup.bench.until(JOB, "running")
        backup.bench.ok("block-job-pause", device=JOB)
        backup.bench.ok("block-job-set-speed", device=JOB, speed=0)
        backup.bench.pause_wait(JOB)
        backup.bench.ok("block-job-resume", device=JOB)
        backup.bench.wait_until_completed(JOB)
        assert backup.bench.same("drive0", "target")

    @NOT_FOUND
    def test_device_not_found(self, backup: Backup, wrong: dict[str, object]) -> None:
        backup.transaction_refused(**wrong)

    @DRIVE
    def test_image_not_found(self, backup: Backup) -> None:
        backup.transaction_refused(target="none", mode="existing")

    def test_target_is_source(self, backup: Backup) -> None:
        backup.transaction_refused(target="drive0")

    @pytest.mark.parametrize("bad", [{"device": "nonexistent"}, {"target": "nonexistent"}, {"target": "drive0"}])
    def test_abort(self, backup: Backup, bad: dict[str, object]) -> None:
        actions = [*backup.actions(**bad), {"type": "abort", "data": {}}]
        backup.bench.refused("transaction", actions=actions)
        backup.bench.assert_no_active_block_jobs()


@NEEDED
class TestCompressedToQcow2:
    form = "qcow2"
    options: ClassVar[dict[str, object]] = {}

    @pytest.fixture(params=["blockdev-backup", "drive-backup"])
    def backup(self, bench: Bench, request: pytest.FixtureRequest) -> Backup:
        """A source of which every chunk can be compressed."""
        source = Image(bench.place / "drive0")
        source.path.write_bytes(b"".join(bytes([n]) * 65536 for n in range(1, SIZE // 65536 + 1)))
        bench.node("drive0", **source.keys)
        image = Image.create(bench.place / "target", self.form, SIZE, **self.options)
        if request.param == "blockdev-backup":
            bench.node("target", **image.keys)
        return Backup(bench, request.param, self.form)

    def compare(self, backup: Backup) -> None:
        if backup.command == "blockdev-backup":
            backup.bench.remove("target")  # what the original still has in its caches is written then
        image = Image(backup.bench.place / "target", self.form)
        assert Image(backup.bench.place / "drive0").same(image)
        image.check()
        assert image.path.stat().st_size < SIZE // 4

    def test_complete_compress(self, backup: Backup) -> None:
        backup.start(compress=True)
        backup.bench.wait_until_completed(JOB)
        self.compare(backup)

    def test_compress_cancel(self, backup: Backup) -> None:
        backup.start(compress=True, speed=SLOW)
        backup.bench.until(JOB, "running")
        assert backup.bench.cancel_and_wait(JOB)["type"] == "backup"

    def test_compress_pause(self, backup: Backup) -> None:
        backup.start(compress=True, speed=SLOW)
        backup.bench.until(JOB, "running")
        backup.bench.pause_job(JOB)
        backup.bench.ok("block-job-set-speed", device=JOB, speed=0)
        backup.bench.ok("block-job-resume", device=JOB)
        backup.bench.wait_until_completed(JOB)
        self.compare(backup)


class TestCompressedToVmdk(TestCompressedToQcow2):
    form = "vmdk"
    options: ClassVar[dict[str, object]] = {"subformat": "streamOptimized"}
