"""Mirror as QEMU's iotest 041 has it, black-box: each class and each case by its name there.

A fleet has no guest whose device could pivot, so ``complete`` ends with the copy, not with another active node.
``docs/qmp-cases.md`` says which case is played where, and which cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from iotest import MIB, SLOW, Bench

SIZE = 4 * MIB
JOB = "drive0"
EIO = 5
ERROR = "Input/output error"
DIFFERENT = "Source and target image have different sizes"


@dataclass(frozen=True)
class Mirror:
    """The command that is to mirror ``drive0`` into ``target``: a node for blockdev-mirror, a file for drive-mirror."""

    bench: Bench
    command: str

    def words(self, **more: object) -> dict[str, object]:
        known = {"job_id": JOB, "device": "drive0", "target": "target", "sync": "full", **more}
        if self.command == "drive-mirror":
            known = {"format": "raw", **known, "target": str(self.bench.place / str(known["target"]))}
        return known

    def start(self, **more: object) -> None:
        self.bench.ok(self.command, **self.words(**more))

    def refused(self, **more: object) -> str:
        before = sorted(self.bench.place.iterdir())
        text = self.bench.refused(self.command, **self.words(**more))
        self.bench.assert_no_active_block_jobs()
        assert sorted(self.bench.place.iterdir()) == before
        return text

    def target(self, size: int = SIZE, *, fill: bool = False) -> None:
        """An image to be mirrored into; only its file where a file is meant."""
        self.bench.image("target", size, fill=fill)
        if self.command == "drive-mirror":
            self.bench.remove("target")

    def complete(self, *, ready: bool = False) -> None:
        self.bench.complete_and_wait(JOB, ready=ready)
        assert self.same()

    def same(self) -> bool:
        return self.bench.same("drive0", "target")

    def size(self, name: str) -> int:
        return (self.bench.place / name).stat().st_size


BOTH = pytest.mark.parametrize("command", ["drive-mirror", "blockdev-mirror"])


@pytest.fixture
def mirror(bench: Bench, command: str) -> Mirror:
    """A full source; the target is there for blockdev-mirror, and is made by drive-mirror."""
    return prepared(bench, command)


def prepared(bench: Bench, command: str, size: int = SIZE, *, holes: bool = False) -> Mirror:
    bench.image("drive0", size, fill=not holes, holes=holes)
    mirror = Mirror(bench, command)
    if command == "blockdev-mirror":
        mirror.target(size)
    return mirror


class TestSingleDrive:
    command = "drive-mirror"
    size = SIZE

    @pytest.fixture
    def mirror(self, bench: Bench) -> Mirror:
        return prepared(bench, self.command, self.size)

    def test_complete(self, mirror: Mirror) -> None:
        mirror.start()
        mirror.complete()

    def test_cancel(self, mirror: Mirror) -> None:
        mirror.start(speed=SLOW)
        mirror.bench.until(JOB, "running")
        assert mirror.bench.cancel_and_wait(JOB, force=True)["type"] == "mirror"

    def test_cancel_after_ready(self, mirror: Mirror) -> None:
        mirror.start()
        mirror.bench.wait_ready_and_cancel(JOB)
        assert mirror.same()

    def test_pause(self, mirror: Mirror) -> None:
        mirror.start(speed=SLOW)
        mirror.bench.until(JOB, "running")
        mirror.bench.pause_job(JOB)
        mirror.bench.ok("block-job-set-speed", device=JOB, speed=0)
        mirror.bench.ok("block-job-resume", device=JOB)
        mirror.complete(ready=mirror.bench.job(JOB)["ready"])

    def test_small_buffer(self, mirror: Mirror) -> None:
        mirror.start(buf_size=4096)
        mirror.complete()

    def test_small_buffer2(self, mirror: Mirror) -> None:
        """There with an image of one cluster, here with a raw one."""
        mirror.target(self.size)
        mirror.start(buf_size=65536, mode="existing")
        mirror.complete()

    def test_image_not_found(self, mirror: Mirror) -> None:
        path = mirror.bench.place / "target"
        assert mirror.refused(mode="existing") == f"Could not open '{path}': No such file or directory"

    def test_device_not_found(self, mirror: Mirror) -> None:
        text = mirror.refused(device="nonexistent")
        assert text == "Cannot find device='nonexistent' nor node-name='nonexistent'"


class TestSingleBlockdev(TestSingleDrive):
    command = "blockdev-mirror"
    test_small_buffer2 = None  # these two as in the original: only a file can be
    test_image_not_found = None

    def test_mirror_to_self(self, mirror: Mirror) -> None:
        mirror.refused(target="drive0")

    def test_target_not_found(self, mirror: Mirror) -> None:
        mirror.refused(target="nonexistent")

    @pytest.mark.parametrize("node", ["drive0", "target"], ids=["test_source_resize", "test_target_resize"])
    def test_resize(self, mirror: Mirror, node: str) -> None:
        mirror.start(auto_finalize=False)
        mirror.bench.wait_ready(JOB)
        mirror.bench.ok("block-job-complete", device=JOB)
        mirror.bench.event("BLOCK_JOB_PENDING", job=JOB)
        mirror.bench.refused("block_resize", device=node, size=65536)
        mirror.bench.refused("block_resize", node_name=node, size=65536)
        mirror.bench.ok("job-finalize", id=JOB)
        mirror.bench.wait_until_completed(JOB)
        assert mirror.size(node) == self.size
        assert mirror.same()

    @pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE], ids=["test_small_target", "test_large_target"])
    def test_another_size(self, mirror: Mirror, size: int) -> None:
        mirror.bench.ok("block_resize", node_name="target", size=size)
        mirror.start()
        mirror.bench.wait_until_completed(JOB, error=DIFFERENT)


class TestSingleDriveZeroLength(TestSingleDrive):
    size = 0


class TestSingleBlockdevZeroLength(TestSingleBlockdev):
    size = 0
    test_another_size = None  # as in the original


class TestSingleDriveUnalignedLength(TestSingleDrive):
    size = 1025 * 1024


class TestSingleBlockdevUnalignedLength(TestSingleBlockdev):
    size = 1025 * 1024


@BOTH
class TestReadErrors:
    @pytest.fixture
    def faulty(self, mirror: Mirror) -> Bench:
        mirror.bench.fault("faulty", "drive0", "read", EIO)
        return mirror.bench

    def test_report_read(self, mirror: Mirror, faulty: Bench) -> None:
        mirror.start(device="faulty")
        data = faulty.event("BLOCK_JOB_ERROR", "BLOCK_JOB_READY", job=JOB)
        assert (data["operation"], data["action"]) == ("read", "report")
        faulty.wait_until_completed(JOB, error=ERROR)

    def test_ignore_read(self, mirror: Mirror, faulty: Bench) -> None:
        mirror.start(device="faulty", on_source_error="ignore")
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "read"
        assert not faulty.job(JOB)["paused"]
        faulty.complete_and_wait(JOB)

    def test_stop_read(self, mirror: Mirror, faulty: Bench) -> None:
        mirror.start(device="faulty", on_source_error="stop")
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


@pytest.mark.parametrize("command", ["blockdev-mirror"])
class TestWriteErrors:
    """Not with drive-mirror: that a target fails cannot be said in the name of a file."""

    @pytest.fixture
    def faulty(self, mirror: Mirror) -> Bench:
        mirror.bench.fault("faulty", "target", "write", EIO)
        return mirror.bench

    def test_report_write(self, mirror: Mirror, faulty: Bench) -> None:
        mirror.start(target="faulty")
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "write"
        faulty.wait_until_completed(JOB, error=ERROR)

    def test_ignore_write(self, mirror: Mirror, faulty: Bench) -> None:
        mirror.start(target="faulty", on_target_error="ignore")
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "write"
        assert not faulty.job(JOB)["paused"]
        faulty.complete_and_wait(JOB)

    def test_stop_write(self, mirror: Mirror, faulty: Bench) -> None:
        mirror.start(target="faulty", on_target_error="stop")
        assert faulty.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "write"
        faulty.until(JOB, "paused")
        info = faulty.job(JOB)
        assert (info["paused"], info["io-status"]) == (True, "failed")
        faulty.ok("block-job-resume", device=JOB)
        assert faulty.job(JOB)["io-status"] == "ok"
        faulty.complete_and_wait(JOB)
        assert faulty.same("drive0", "target")


@BOTH
class TestSetSpeed:
    def test_set_speed(self, bench: Bench, command: str) -> None:
        mirror = prepared(bench, command, MIB)
        mirror.start()
        assert bench.job(JOB)["speed"] == 0
        bench.ok("block-job-set-speed", device=JOB, speed=8 * MIB)
        assert bench.job(JOB)["speed"] == 8 * MIB
        bench.wait_ready_and_cancel(JOB)
        mirror.start(speed=4 * MIB)
        assert bench.job(JOB)["speed"] == 4 * MIB
        bench.wait_ready_and_cancel(JOB)

    def test_set_speed_invalid(self, mirror: Mirror) -> None:
        mirror.bench.refused(mirror.command, **mirror.words(speed=-1))
        mirror.bench.assert_no_active_block_jobs()
        mirror.start()
        mirror.bench.refused("block-job-set-speed", device=JOB, speed=-1)
        mirror.bench.wait_ready_and_cancel(JOB)


class TestUnbackedSource:
    """The source is a node, of no device: it takes an explicit job id."""

    @pytest.mark.parametrize("sync", ["full", "top"])
    def test_absolute_paths(self, bench: Bench, sync: str) -> None:
        mirror = prepared(bench, "drive-mirror", holes=True)
        mirror.start(sync=sync, mode="absolute-paths")
        mirror.complete()

    def test_absolute_paths_over_what_is_there(self, bench: Bench) -> None:
        """It is made anew, in the source's size."""
        mirror = prepared(bench, "drive-mirror")
        mirror.target(SIZE // 2, fill=True)
        mirror.start(mode="absolute-paths")
        mirror.complete()

    def test_absolute_paths_none(self, bench: Bench) -> None:
        """A target of what is written from now on needs the source behind it, which a raw one cannot have."""
        mirror = prepared(bench, "drive-mirror")
        assert mirror.refused(sync="none") == "Backing file not supported for file format 'raw'"

    @pytest.mark.parametrize("sync", ["full", "top", "none"])
    def test_blockdev(self, bench: Bench, sync: str) -> None:
        prepared(bench, "blockdev-mirror", holes=True).start(sync=sync)
        bench.complete_and_wait(JOB)

    @pytest.mark.parametrize(
        "command", ["drive-mirror", "blockdev-mirror"], ids=["test_existing_full", "test_blockdev_full"]
    )
    def test_garbage_is_zeroed(self, bench: Bench, command: str) -> None:
        bench.image("drive0", SIZE, holes=True)
        mirror = Mirror(bench, command)
        mirror.target(fill=True)
        mirror.start(**({"mode": "existing"} if command == "drive-mirror" else {}))
        mirror.complete()

    def test_existing_of_another_size(self, bench: Bench) -> None:
        mirror = prepared(bench, "drive-mirror")
        mirror.target(SIZE // 2)
        mirror.start(mode="existing")
        bench.wait_until_completed(JOB, error=DIFFERENT)


@BOTH
class TestGranularity:
    def test_granularity(self, bench: Bench, command: str) -> None:
        mirror = prepared(bench, command, 10 * MIB)
        mirror.start(granularity=8192)
        first = next(event for event in bench.events() if event["event"] != "JOB_STATUS_CHANGE")
        assert first["event"] == "BLOCK_JOB_READY"
        bench.complete_and_wait(JOB, ready=True)
        assert bench.same("drive0", "target")


class TestRepairQuorum:
    """Only what is asked wrongly: there is no quorum whose replica could be replaced."""

    @pytest.fixture
    def mirror(self, bench: Bench) -> Mirror:
        bench.image("img1", SIZE)
        return prepared(bench, "drive-mirror")

    def test_image_not_found(self, mirror: Mirror) -> None:
        mirror.refused(node_name="repair0", replaces="img1", mode="existing")

    def test_device_not_found(self, mirror: Mirror) -> None:
        mirror.refused(device="nonexistent", node_name="repair0", replaces="img1")

    def test_wrong_sync_mode(self, mirror: Mirror) -> None:
        words = mirror.words(node_name="repair0", replaces="img1")
        del words["sync"]
        assert mirror.bench.refused("drive-mirror", **words) == "Parameter 'sync' is missing"

    def test_no_node_name(self, mirror: Mirror) -> None:
        text = mirror.refused(replaces="img1")
        assert text == "a node-name must be provided when replacing a named node of the graph"

    def test_nonexistent_replaces(self, mirror: Mirror) -> None:
        words = mirror.words(node_name="repair0", replaces="img77")
        text = mirror.bench.refused("drive-mirror", **words)  # the original has made its target by then
        assert text == "Failed to find node with node-name='img77'"
        mirror.bench.assert_no_active_block_jobs()


class TestOrphanedSource:
    @pytest.fixture
    def nulls(self, bench: Bench) -> Bench:
        for name, more in (("src", {}), ("dest", {}), ("dest-ro", {"read_only": True})):
            bench.node(name, driver="null-co", size=SIZE, **more)
        return bench

    def test_no_job_id(self, nulls: Bench) -> None:
        nulls.refused("blockdev-mirror", device="src", target="dest", sync="full")
        nulls.assert_no_active_block_jobs()

    def test_success(self, nulls: Bench) -> None:
        nulls.ok("blockdev-mirror", job_id="job", device="src", target="dest", sync="full")
        nulls.complete_and_wait("job")

    def test_failing_permissions(self, nulls: Bench) -> None:
        text = nulls.refused("blockdev-mirror", job_id="job", device="src", target="dest-ro", sync="full")
        assert text == "Block node is read-only"
        nulls.assert_no_active_block_jobs()
