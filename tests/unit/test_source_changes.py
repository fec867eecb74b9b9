"""A source that is another one, has another size, or was written to under its copy: what becomes of the job."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alone import Alone
from mounts import memory, mounted

from blockjobs.model import volumespec
from blockjobs.model.errors import SourceChanged
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec, OnChange
from blockworker.drivers.backup import Backup
from blockworker.drivers.mirror import Mirror
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.system.filesystem import filesystem_kind
from blockworker.targets import manifest

MIB = 1 << 20
SIZE = 4 * MIB
BOTH = pytest.mark.parametrize("policy", list(OnChange))


class Interrupted(Alone):
    """An attempt in which ``change`` is called when all was copied, before the last look at the source."""

    change: Callable[[], object] = staticmethod(lambda: None)

    def checkpoint(self, durable: Checkpoint) -> None:
        if durable.ranges == ((0, self.opened["size"]),):
            change, self.change = self.change, lambda: None
            change()


@pytest.fixture(params=["on a disk", "in memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "on a disk":
        fd = os.open(tmp_path, os.O_RDONLY)
        kind = filesystem_kind(fd)[0]
        os.close(fd)
        if kind not in ("ext4", "xfs", "btrfs"):
            pytest.skip(f"the tests' files are on {kind}")
        yield tmp_path
        return
    where = memory(64 * MIB)
    if where is None:
        pytest.skip("there is no room in memory")
    made = Path(tempfile.mkdtemp(dir=where))
    yield made
    shutil.rmtree(made)


def job(place: Path, source: Any = None, **more: Any) -> tuple[Roots, JobSpec]:
    root = (str(place),)
    roots = Roots(HostConfig(name="h", read_roots=root, write_roots=root, devices=("/dev/loop*",)))
    values: dict[str, Any] = {
        "id": JobId("R.a"), "transaction": TxnId("R"), "run": RunId("R"), "snapshot": "none",
        "source": volumespec.parse_volume(source or f"h:{place}/source"),
        "target": volumespec.parse_volume(f"h:{place}/out.img"), "target_base": str(place),
    }  # fmt: skip
    return roots, JobSpec(**{**values, **more})


def told(place: Path) -> str:
    found: str = manifest.load_manifest(f"{place}/out.img.manifest.json")["source_change"]
    return found


@pytest.fixture
def mapped(place: Path) -> Iterator[mmap.mmap]:
    """The source, mapped by a program, with a page that is dirty."""
    path = place / "source"
    path.write_bytes(b"a" * SIZE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as pages:
        pages[0] = ord("b")
        yield pages


def test_a_write_through_a_dirty_page_fails_the_job(place, mapped):
    attempt = Interrupted(*job(place))
    attempt.change = lambda: mapped.__setitem__(0, ord("N"))
    with pytest.raises(SourceChanged, match=r"mtime|content at 0"):
        attempt.publish()
    assert not (place / "out.img").exists()


def test_a_write_through_a_dirty_page_is_in_the_manifest(place, mapped):
    attempt = Interrupted(*job(place, on_source_change=OnChange.REPORT))
    attempt.change = lambda: mapped.__setitem__(3 * MIB, ord("N"))
    attempt.publish()
    assert told(place) == "changed"


def test_a_hole_that_was_filled_through_a_mapping_is_a_change(place):
    path = place / "source"
    with path.open("w+b") as file:
        file.truncate(SIZE)
        with mmap.mmap(file.fileno(), SIZE) as pages:
            attempt = Interrupted(*job(place, on_source_change=OnChange.REPORT))
            attempt.change = lambda: pages.__setitem__(2 * MIB, ord("N"))
            attempt.publish()
    assert told(place) == "changed"


def test_a_source_that_is_mapped_and_not_written_is_unchanged(place, mapped):
    attempt = Interrupted(*job(place))
    attempt.change = lambda: mapped[0]
    attempt.publish()
    assert told(place) == "unchanged"


def test_without_digests_nothing_proves_that_a_source_in_memory_is_unchanged(place, mapped):
    Interrupted(*job(place, digests=False)).publish()
    on_a_disk = str(place).startswith(tempfile.gettempdir())
    assert told(place) == ("unchanged" if on_a_disk else "unknown")


@BOTH
@pytest.mark.parametrize("size", [SIZE + 1, SIZE - 1, 0], ids=["grown", "shrunk", "empty"])
def test_another_size_fails_the_job_under_both_policies(tmp_path, policy, size):
    source = tmp_path / "source"
    source.write_bytes(b"a" * SIZE)
    attempt = Interrupted(*job(tmp_path, on_source_change=policy))
    attempt.change = lambda: os.truncate(source, size)
    with pytest.raises(SourceChanged, match="size"):
        attempt.publish()
    os.truncate(source, size)
    with pytest.raises(SourceChanged, match="size"):
        attempt.driver.attached(attempt.roots, attempt)
    assert not (tmp_path / "out.img").exists()


@BOTH
def test_another_file_under_the_name_fails_the_job_under_both_policies(tmp_path, policy):
    source = tmp_path / "source"
    source.write_bytes(b"a" * SIZE)
    attempt = Interrupted(*job(tmp_path, on_source_change=policy))
    attempt.work.close()
    shutil.copy2(source, tmp_path / "other")
    (tmp_path / "other").rename(source)
    with pytest.raises(SourceChanged, match="another file"):
        attempt.driver.attached(attempt.roots, attempt)


@BOTH
@pytest.mark.parametrize("change", ["grown", "another"])
def test_a_device_that_is_another_one_or_of_another_size_fails_the_job_under_both_policies(tmp_path, policy, change):
    if os.geteuid():
        pytest.skip("only root has loop devices")
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        file.write_bytes(file.name[:1].encode() * SIZE)
    devices = [subprocess.check_output(["losetup", "-f", "--show", file], text=True).strip() for file in files]
    link = Path(f"/dev/blockjobs-test-{os.getpid()}")
    try:
        link.symlink_to(devices[0])
        roots, spec = job(tmp_path, f"h:{link}", on_source_change=policy)
        roots = Roots(HostConfig(**{
            **{name: getattr(roots.config, name) for name in ("name", "read_roots", "write_roots")},
            "devices": (str(link),),
        }))  # fmt: skip
        attempt = Interrupted(roots, spec)
        attempt.work.close()
        if change == "grown":
            os.truncate(files[0], 2 * SIZE)
            subprocess.run(["losetup", "-c", devices[0]], check=True)
        else:
            link.unlink()
            link.symlink_to(devices[1])
        with pytest.raises(SourceChanged, match="size" if change == "grown" else "another device"):
            attempt.driver.attached(roots, attempt)
    finally:
        link.unlink()
        for device in devices:
            subprocess.run(["losetup", "-d", device], check=True)


def test_prepare_refuses_a_copy_of_a_source_that_changed_unless_that_is_allowed(tmp_path):
    (tmp_path / "source").write_bytes(b"a" * SIZE)
    attempt = Interrupted(*job(tmp_path))
    result = {**attempt.run(), "source-change": "changed"}
    with pytest.raises(SourceChanged):
        attempt.driver.prepare(attempt.roots, attempt.spec, attempt.work.durable, attempt.opened, result)
    opened = {**attempt.opened, "size": SIZE + 1}
    with pytest.raises(SourceChanged, match="size"):
        attempt.driver.prepare(attempt.roots, attempt.spec, attempt.work.durable, opened, result)
    assert Mirror.follows
    assert not Backup.follows


@pytest.mark.parametrize("how", ["reflink", "command:copy"])
def test_a_cut_is_not_made_of_another_file_than_the_one_that_was_opened(tmp_path, how):
    with mounted("xfs", tmp_path / "fs", gib=1) as place:
        source = place / "source"
        source.write_bytes(b"a" * SIZE)
        (place / "copy").write_text('test "$1" = remove || { cp "$2" "$2.$3" && echo "$2.$3"; }')
        roots, spec = job(place, snapshot=how)
        roots = Roots(replace(roots.config, commands={"copy": ("/bin/sh", str(place / "copy"))}))
        driver = Backup()
        found = driver.open(roots, spec, lambda: True)
        opened = {"size": found.size, "identity": found.identity.to_list()}
        written(source)  # no matter: it is why there is a cut
        assert driver.cut(roots, spec, opened)
        shutil.copy2(source, place / "other")
        (place / "other").rename(source)
        with pytest.raises(SourceChanged, match="another file"):
            driver.cut(roots, spec, opened)


# --- layers -------------------------------------------------------------------------------------------

needs_qemu = pytest.mark.skipif(
    not (shutil.which("qemu-nbd") and shutil.which("qemu-img")), reason="qemu-utils is not installed: `make tools`"
)


def layered(place: Path) -> tuple[Path, dict[str, Any]]:
    low, top = place / "low", place / "top.qcow2"
    low.write_bytes(b"a" * SIZE)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", low, "-F", "raw", top], check=True)
    file = {"driver": "file", "filename": str(top)}
    return low, {"driver": "qcow2", "host": "h", "file": file, "backing": {"driver": "file", "filename": str(low)}}


def written(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"N" * SIZE)


@needs_qemu
@BOTH
def test_a_layer_that_is_rewritten_under_the_copy_is_a_change_of_the_source(tmp_path, policy):
    low, source = layered(tmp_path)
    attempt = Interrupted(*job(tmp_path, source, on_source_change=policy))
    attempt.change = lambda: written(low)
    if policy is OnChange.REPORT:
        attempt.publish()
        assert told(tmp_path) == "changed"
    else:
        with pytest.raises(SourceChanged, match="of a layer below"):
            attempt.publish()


@needs_qemu
@BOTH
def test_a_layer_that_is_replaced_fails_the_job_under_both_policies(tmp_path, policy):
    low, source = layered(tmp_path)
    attempt = Interrupted(*job(tmp_path, source, on_source_change=policy))
    attempt.work.close()
    shutil.copy2(low, tmp_path / "other")
    (tmp_path / "other").rename(low)
    with pytest.raises(SourceChanged, match="another layer"):
        attempt.driver.attached(attempt.roots, attempt)


@needs_qemu
@pytest.mark.parametrize("change", [None, written], ids=["nothing", "a layer is written"])
def test_the_layers_below_a_cut_are_compared_as_well(tmp_path, change):
    with mounted("xfs", tmp_path / "fs", gib=1) as place:
        low, source = layered(place)
        attempt = Interrupted(*job(place, source, snapshot="reflink"))
        attempt.between = lambda: os.utime(place / "top.qcow2")  # no matter: its cut is what is read
        if change is None:
            attempt.publish()
            assert told(place) == "unchanged"
            return
        attempt.change = lambda: change(low)
        with pytest.raises(SourceChanged, match="of a layer below"):
            attempt.publish()
