"""Backup as QEMU's iotest 055 has it, black-box: each case by its name there; the source is slow instead of frozen."""

from __future__ import annotations

import pytest
from iotest import MIB, SLOW, Bench

SIZE = 4 * MIB
JOB = "drive0"


def words(**more: object) -> dict[str, object]:
    return {"job_id": JOB, "device": "drive0", "target": "target", "sync": "full", **more}


def members(*actions: dict[str, object]) -> list[dict[str, object]]:
    return [
        {"type": "blockdev-backup", "data": {name.replace("_", "-"): value for name, value in data.items()}}
        for data in actions
    ]


@pytest.fixture
def single(bench: Bench) -> Bench:
    """A patterned source, and a target of its size."""
    bench.image("drive0", SIZE, fill=True)
    bench.image("target", SIZE)
    return bench


class TestSingleDrive:
    def test_cancel_blockdev_backup(self, single: Bench) -> None:
        single.ok("blockdev-backup", **words(speed=SLOW))
        single.until(JOB, "running")
        assert single.cancel_and_wait(JOB)["type"] == "backup"

    def test_pause_blockdev_backup(self, single: Bench) -> None:
        single.ok("blockdev-backup", **words(speed=SLOW))
        single.until(JOB, "running")
        single.pause_job(JOB)
        single.ok("block-job-set-speed", device=JOB, speed=0)
        single.ok("block-job-resume", device=JOB)
        single.wait_until_completed(JOB)
        assert single.same("drive0", "target")

    @pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE], ids=["test_small_target", "test_large_target"])
    def test_another_size(self, single: Bench, size: int) -> None:
        single.image("other", size)
        single.refused("blockdev-backup", **words(target="other"))
        single.assert_no_active_block_jobs()

    @pytest.mark.parametrize("wrong", [{"device": "nonexistent"}, {"target": "nonexistent"}])
    def test_device_not_found(self, single: Bench, wrong: dict[str, object]) -> None:
        single.refused("blockdev-backup", **words(**wrong))
        single.assert_no_active_block_jobs()

    def test_target_is_source(self, single: Bench) -> None:
        single.refused("blockdev-backup", **words(target="drive0"))
        single.assert_no_active_block_jobs()


class TestSetSpeed:
    def test_set_speed_blockdev_backup(self, single: Bench) -> None:
        single.ok("blockdev-backup", **words(auto_finalize=False))
        single.event("BLOCK_JOB_PENDING", job=JOB)
        assert single.job(JOB)["speed"] == 0
        single.cancel_and_wait(JOB)
        single.ok("blockdev-backup", **words(speed=SLOW))
        single.until(JOB, "running")
        single.ok("job-pause", id=JOB)
        single.ok("block-job-set-speed", device=JOB, speed=8 * MIB)
        assert single.job(JOB)["speed"] == 8 * MIB
        single.cancel_and_wait(JOB, force=True)
        single.ok("blockdev-backup", **words(speed=4 * MIB, auto_finalize=False))
        assert single.job(JOB)["speed"] == 4 * MIB
        single.cancel_and_wait(JOB)

    def test_set_speed_invalid_blockdev_backup(self, single: Bench) -> None:
        single.refused("blockdev-backup", **words(speed=-1))
        single.assert_no_active_block_jobs()
        single.ok("blockdev-backup", **words(speed=SLOW))
        single.refused("block-job-set-speed", device=JOB, speed=-1)
        single.until(JOB, "running")
        single.cancel_and_wait(JOB)


class TestSingleTransaction:
    def test_cancel_blockdev_backup(self, single: Bench) -> None:
        single.ok("transaction", actions=members(words(speed=SLOW)))
        single.until(JOB, "running")
        single.cancel_and_wait(JOB)

    def test_pause_blockdev_backup(self, single: Bench) -> None:
        single.ok("transaction", actions=members(words(speed=SLOW)))
        single.until(JOB, "running")
        single.ok("block-job-pause", device=JOB)
        single.ok("block-job-set-speed", device=JOB, speed=0)
        single.pause_wait(JOB)
        single.ok("block-job-resume", device=JOB)
        single.wait_until_completed(JOB)
        assert single.same("drive0", "target")

    @pytest.mark.parametrize("wrong", [{"device": "nonexistent"}, {"target": "nonexistent"}])
    def test_device_not_found(self, single: Bench, wrong: dict[str, object]) -> None:
        single.refused("transaction", actions=members(words(**wrong)))
        single.assert_no_active_block_jobs()

    def test_target_is_source(self, single: Bench) -> None:
        single.refused("transaction", actions=members(words(target="drive0")))
        single.assert_no_active_block_jobs()

    @pytest.mark.parametrize("bad", [{"device": "nonexistent"}, {"target": "nonexistent"}, {"target": "drive0"}])
    def test_abort(self, single: Bench, bad: dict[str, object]) -> None:
        single.refused("transaction", actions=[*members(words(**bad)), {"type": "abort", "data": {}}])
        single.assert_no_active_block_jobs()
