"""Mirror as QEMU's iotest 041 has it, black-box: each case by its name there, on blockdev-mirror.

A fleet has no guest whose device could pivot, so ``complete`` ends with the copy, not with another active node.
"""

from __future__ import annotations

import pytest
from iotest import MIB, SLOW, Bench

SIZE = 4 * MIB
JOB = "drive0"
EIO = 5
ERROR = "Input/output error"


def words(**more: object) -> dict[str, object]:
    return {"job_id": JOB, "device": "drive0", "target": "target", "sync": "full", **more}


def mirrored(bench: Bench, size: int = SIZE) -> Bench:
    bench.image("drive0", size, fill=True)
    bench.image("target", size)
    return bench


@pytest.fixture
def single(bench: Bench) -> Bench:
    return mirrored(bench)


class TestSingleBlockdev:
    @pytest.mark.parametrize("size", [SIZE, 0, 1025 * 1024], ids=["Single", "ZeroLength", "UnalignedLength"])
    def test_complete(self, bench: Bench, size: int) -> None:
        mirrored(bench, size).ok("blockdev-mirror", **words())
        bench.complete_and_wait(JOB)
        assert bench.same("drive0", "target")

    def test_cancel(self, single: Bench) -> None:
        single.ok("blockdev-mirror", **words(speed=SLOW))
        single.until(JOB, "running")
        assert single.cancel_and_wait(JOB, force=True)["type"] == "mirror"

    @pytest.mark.parametrize("size", [SIZE, 0, 1025 * 1024], ids=["Single", "ZeroLength", "UnalignedLength"])
    def test_cancel_after_ready(self, bench: Bench, size: int) -> None:
        mirrored(bench, size).ok("blockdev-mirror", **words())
        bench.wait_ready_and_cancel(JOB)
        assert bench.same("drive0", "target")

    def test_pause(self, single: Bench) -> None:
        single.ok("blockdev-mirror", **words(speed=SLOW))
        single.until(JOB, "running")
        single.pause_job(JOB)
        single.ok("block-job-set-speed", device=JOB, speed=0)
        single.ok("block-job-resume", device=JOB)
        single.complete_and_wait(JOB)
        assert single.same("drive0", "target")

    @pytest.mark.parametrize("size", [4096, 65536], ids=["test_small_buffer", "test_small_buffer2"])
    def test_small_buffer(self, single: Bench, size: int) -> None:
        single.ok("blockdev-mirror", **words(buf_size=size))
        single.complete_and_wait(JOB)
        assert single.same("drive0", "target")

    @pytest.mark.parametrize("wrong", [{"device": "nonexistent"}, {"target": "nonexistent"}])
    def test_device_not_found(self, single: Bench, wrong: dict[str, object]) -> None:
        single.refused("blockdev-mirror", **words(**wrong))
        single.assert_no_active_block_jobs()

    def test_mirror_to_self(self, single: Bench) -> None:
        single.refused("blockdev-mirror", **words(target="drive0"))
        single.assert_no_active_block_jobs()

    @pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE], ids=["test_small_target", "test_large_target"])
    def test_another_size(self, single: Bench, size: int) -> None:
        single.image("other", size)
        single.ok("blockdev-mirror", **words(target="other"))
        single.wait_until_completed(JOB, error="Source and target image have different sizes")


class TestReadErrors:
    @pytest.fixture
    def faulty(self, single: Bench) -> Bench:
        single.fault("faulty", "drive0", "read", EIO)
        return single

    def test_report_read(self, faulty: Bench) -> None:
        faulty.ok("blockdev-mirror", **words(device="faulty"))
        data = faulty.event("BLOCK_JOB_ERROR", "BLOCK_JOB_READY", job=JOB)
        assert (data["operation"], data["action"]) == ("read", "report")
        faulty.wait_until_completed(JOB, error=ERROR)

    def test_ignore_read(self, faulty: Bench) -> None:
        faulty.ok("blockdev-mirror", **words(device="faulty", on_source_error="ignore"))
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "read"
        assert not faulty.job(JOB)["paused"]
        faulty.complete_and_wait(JOB)

    def test_stop_read(self, faulty: Bench) -> None:
        faulty.ok("blockdev-mirror", **words(device="faulty", on_source_error="stop"))
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "read"
        faulty.until(JOB, "paused")
        info = faulty.job(JOB)
        assert (info["paused"], info["io-status"]) == (True, "failed")
        faulty.ok("block-job-resume", device=JOB)
        faulty.wait_ready(JOB)
        info = faulty.job(JOB)
        assert (info["paused"], info["io-status"]) == (False, "ok")
        faulty.complete_and_wait(JOB, ready=True)
        assert faulty.same("drive0", "target")


class TestWriteErrors:
    @pytest.fixture
    def faulty(self, single: Bench) -> Bench:
        single.fault("faulty", "target", "write", EIO)
        return single

    def test_report_write(self, faulty: Bench) -> None:
        faulty.ok("blockdev-mirror", **words(target="faulty"))
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "write"
        faulty.wait_until_completed(JOB, error=ERROR)

    def test_ignore_write(self, faulty: Bench) -> None:
        faulty.ok("blockdev-mirror", **words(target="faulty", on_target_error="ignore"))
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "write"
        assert not faulty.job(JOB)["paused"]
        faulty.complete_and_wait(JOB)

    def test_stop_write(self, faulty: Bench) -> None:
        faulty.ok("blockdev-mirror", **words(target="faulty", on_target_error="stop"))
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "write"
        faulty.until(JOB, "paused")
        info = faulty.job(JOB)
        assert (info["paused"], info["io-status"]) == (True, "failed")
        faulty.ok("block-job-resume", device=JOB)
        assert faulty.job(JOB)["io-status"] == "ok"
        faulty.complete_and_wait(JOB)
        assert faulty.same("drive0", "target")


class TestSetSpeed:
    def test_set_speed(self, bench: Bench) -> None:
        single = mirrored(bench, MIB)
        single.ok("blockdev-mirror", **words())
        assert single.job(JOB)["speed"] == 0
        single.ok("block-job-set-speed", device=JOB, speed=8 * MIB)
        assert single.job(JOB)["speed"] == 8 * MIB
        single.wait_ready_and_cancel(JOB)
        single.ok("blockdev-mirror", **words(speed=4 * MIB))
        assert single.job(JOB)["speed"] == 4 * MIB
        single.wait_ready_and_cancel(JOB)

    def test_set_speed_invalid(self, single: Bench) -> None:
        single.refused("blockdev-mirror", **words(speed=-1))
        single.assert_no_active_block_jobs()
        single.ok("blockdev-mirror", **words())
        single.refused("block-job-set-speed", device=JOB, speed=-1)
        single.wait_ready_and_cancel(JOB)


class TestUnbackedSource:
    @pytest.mark.parametrize("sync", ["full", "top", "none"])
    def test_absolute_paths(self, bench: Bench, sync: str) -> None:
        bench.image("drive0", SIZE, holes=True)
        bench.image("target", SIZE)
        bench.ok("blockdev-mirror", **words(sync=sync))
        bench.complete_and_wait(JOB)

    def test_blockdev_full(self, bench: Bench) -> None:
        bench.image("drive0", SIZE, holes=True)
        bench.image("target", SIZE, fill=True)
        bench.ok("blockdev-mirror", **words())
        bench.complete_and_wait(JOB)
        assert bench.same("drive0", "target")


class TestGranularity:
    def test_granularity(self, bench: Bench) -> None:
        mirrored(bench, 10 * MIB).ok("blockdev-mirror", **words(granularity=8192))
        first = next(event for event in bench.events() if event["event"] != "JOB_STATUS_CHANGE")
        assert first["event"] == "BLOCK_JOB_READY"
        bench.complete_and_wait(JOB, ready=True)
        assert bench.same("drive0", "target")


class TestOrphanedSource:
    def test_no_job_id(self, single: Bench) -> None:
        single.refused("blockdev-mirror", device="drive0", target="target", sync="full")
        single.assert_no_active_block_jobs()
