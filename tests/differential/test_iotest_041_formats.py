"""Mirror as QEMU's iotest 041 has it, of images in layers: the cases of test_iotest_041.py that need a format, by name.

The originals run with qcow2, their source without anything of its own on a raw image; here the format and every layer
are named, which both servers take.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
import test_iotest_041 as raw
from images import NEEDED, Image
from iotest import MIB, Bench
from test_iotest_041 import DIFFERENT, EIO, JOB, SIZE, Mirror

pytestmark = NEEDED
CLUSTER = 65536  # bytes; of a qcow2 for which nothing else is said


@dataclass(frozen=True)
class Layered(Mirror):
    """Mirrors a qcow2 that lies on a raw image into a qcow2."""

    def words(self, **more: object) -> dict[str, object]:
        known = {"format": "qcow2"} if self.command == "drive-mirror" else {}
        return super().words(**{**known, **more})

    @property
    def back(self) -> Image:
        return Image(self.bench.place / "back")

    @property
    def source(self) -> Image:
        return Image(self.bench.place / "drive0", "qcow2", self.back)

    def image(self, size: int, below: Image | None = None, **options: object) -> Image:
        """The file of the target."""
        return Image.create(self.bench.place / "target", "qcow2", size, below, **options)

    def target(self, size: int = SIZE, *, fill: bool = False) -> None:
        assert not fill, "it has nothing of its own"
        image = self.image(size, self.back)
        if self.command == "blockdev-mirror":
            self.bench.node("target", **image.keys)

    @property
    def made(self) -> Image:
        return Image(self.bench.place / "target", "qcow2")

    def same(self) -> bool:
        return self.source.same(self.made)

    def size(self, name: str) -> int:
        return int(Image(self.bench.place / name, "qcow2").info()["virtual-size"])


def layered(bench: Bench, command: str, size: int = SIZE, *, below: int | None = None, own: int = MIB) -> Layered:
    """A source with a cluster of its own at ``own``, on an image of ``below`` random bytes (if not said, its size)."""
    mirror = Layered(bench, command)
    mirror.back.path.write_bytes(os.urandom(size if below is None else below))
    Image.create(mirror.source.path, "qcow2", size, mirror.back)
    if size:
        mirror.source.write(own, 512)
    bench.node("drive0", **mirror.source.keys)
    if command == "blockdev-mirror":
        mirror.target(size)
    return mirror


class TestSingleDrive(raw.TestSingleDrive):
    @pytest.fixture
    def mirror(self, bench: Bench) -> Layered:
        return layered(bench, self.command, self.size)

    def test_small_buffer2(self, mirror: Layered) -> None:
        """The target is one cluster."""
        image = mirror.image(self.size, cluster_size=2 * MIB)
        mirror.start(buf_size=65536, mode="existing")
        mirror.complete()
        assert image.info()["cluster-size"] == 2 * MIB

    def test_large_cluster(self, mirror: Layered) -> None:
        """The target is one cluster, on the source's own backing file."""
        mirror.image(self.size, mirror.back, cluster_size=2 * MIB)
        mirror.start(mode="existing")
        mirror.complete()


class TestSingleBlockdev(TestSingleDrive, raw.TestSingleBlockdev):
    command = "blockdev-mirror"
    test_small_buffer2 = None  # as in the original: only a file can be
    test_large_cluster = None
    test_image_not_found = None

    @pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE], ids=["test_small_target", "test_large_target"])
    def test_another_size(self, mirror: Layered, size: int) -> None:
        """The target is another instead of resized: ours resizes files only."""
        mirror.bench.remove("target")
        mirror.target(size)
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


class TestMirrorNoBacking:
    """The target's backing file is not there while it is written: nobody has to open it for ``sync: full``."""

    @pytest.fixture
    def mirror(self, bench: Bench) -> Layered:
        return layered(bench, "drive-mirror")

    def ready(self, mirror: Layered, **options: object) -> None:
        """The backing file is there again, before the original opens it to complete, and would be seen."""
        below = mirror.bench.place / "other"
        below.touch()
        mirror.image(SIZE, Image(below), **options)
        below.unlink()
        mirror.start(mode="existing")
        mirror.bench.wait_ready(JOB)
        below.write_bytes(b"\xff" * SIZE)

    def test_complete(self, mirror: Layered) -> None:
        self.ready(mirror)
        mirror.complete(ready=True)

    def test_cancel(self, mirror: Layered) -> None:
        self.ready(mirror)
        mirror.bench.ok("block-job-cancel", device=JOB)
        mirror.bench.wait_until_completed(JOB)
        assert mirror.same()

    def test_large_cluster(self, mirror: Layered) -> None:
        self.ready(mirror, cluster_size=2 * MIB)
        mirror.complete(ready=True)


class TestMirrorResized:
    """The source is longer than its backing file; what is behind that reads as zeros."""

    @pytest.mark.parametrize("sync", ["top", "full"], ids=["test_complete_top", "test_complete_full"])
    def test_complete(self, bench: Bench, sync: str) -> None:
        mirror = layered(bench, "drive-mirror", 2 * MIB, below=MIB)
        mirror.start(sync=sync)
        mirror.complete()
        assert mirror.size("target") == 2 * MIB


class TestReadErrors:
    def test_large_cluster(self, bench: Bench) -> None:
        """Half of a cluster of the target is the source's own; the other comes from below, even though only the top is
        mirrored."""
        mirror = layered(bench, "drive-mirror", own=MIB + CLUSTER)
        bench.fault("faulty", "drive0", "read", EIO, offset=MIB + CLUSTER)
        image = mirror.image(SIZE, mirror.back, cluster_size=2 * CLUSTER)
        mirror.start(device="faulty", sync="top", mode="existing", on_source_error="ignore")
        assert bench.event("BLOCK_JOB_ERROR", job=JOB)["operation"] == "read"
        mirror.complete()
        assert image.own() == [(MIB, 2 * CLUSTER)]


class TestUnbackedSource:
    """The source is all there is of it; its holes hide what the target had, or what lies below the target."""

    @pytest.fixture
    def mirror(self, bench: Bench) -> Layered:
        mirror = Layered(bench, "drive-mirror")
        alone = Image.create(bench.place / "drive0", "qcow2", SIZE)
        alone.write(MIB, MIB)
        bench.node("drive0", **alone.keys)
        return mirror

    @pytest.mark.parametrize("sync", ["full", "top"])
    def test_absolute_paths(self, mirror: Layered, sync: str) -> None:
        mirror.start(sync=sync, mode="absolute-paths")
        mirror.complete()
        assert "backing-filename" not in mirror.made.info()

    def test_absolute_paths_none(self, mirror: Layered) -> None:
        """The source is the target's backing file."""
        mirror.start(sync="none", mode="absolute-paths")
        mirror.complete()
        told = mirror.made.info()
        assert (told["backing-filename"], told["backing-filename-format"]) == (str(mirror.source.path), "qcow2")
        assert mirror.made.own() == []

    @pytest.mark.parametrize(
        "command", ["drive-mirror", "blockdev-mirror"], ids=["test_existing_full", "test_blockdev_full"]
    )
    def test_garbage_is_zeroed(self, mirror: Layered, command: str) -> None:
        mirror.back.path.write_bytes(os.urandom(SIZE))
        image = mirror.image(SIZE, mirror.back)
        image.write(0, 2 * MIB)
        if command == "blockdev-mirror":
            mirror.bench.node("target", **image.keys)
        mirror = Layered(mirror.bench, command)
        mirror.start(**({"mode": "existing"} if command == "drive-mirror" else {}))
        mirror.complete()
