"""No target of any kind writes behind the size that it was made for."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import VolumeError
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import DebugVolume, FileVolume
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.targets import inplace
from blockworker.targets.inplace import DeviceTarget
from blockworker.targets.opening import open_member
from blockworker.targets.staged import StagedTarget
from blockworker.volumes import Identity, NullTarget, Target, filter_target
from blockworker.volumes.formats import FormatTarget

MIB = 1 << 20
SIZE = 2 * MIB
Behind = Callable[[], bytes]  # what lies behind the target's end


def of_a_file(site: Any, _: Path, stack: ExitStack) -> tuple[Target, Behind]:
    site.image(b"A" * SIZE)
    member = site.opened(site.spec())
    target = StagedTarget.take(site.roots, member, 1)
    stack.callback(target.close)
    return target, lambda: Path(member.directory, member.staging).read_bytes()[SIZE:]


def of_a_device(site: Any, place: Path, stack: ExitStack) -> tuple[Target, Behind]:
    if os.geteuid():
        pytest.skip("only root has loop devices")
    disk = place / "disk"
    disk.write_bytes(b"X" * 4 * MIB)
    device = subprocess.check_output(["losetup", "-f", "--show", disk], text=True).strip()
    stack.callback(subprocess.run, ["losetup", "-d", device], check=True)
    root = (str(site.backup),)
    roots = Roots(HostConfig(name="web1", read_roots=root, write_roots=root, allow_in_place=True, devices=(device,)))
    spec = JobSpec(
        id=JobId("R.a"), transaction=TxnId("R"), run=RunId("R"), source=volumespec.parse_volume("web1:/s"), offset=MIB,
        target=volumespec.parse_volume({"driver": "host_device", "host": "web1", "filename": device}), in_place=True,
    )  # fmt: skip
    inplace.open_target(roots, spec, size=SIZE, source=Identity("none", size=SIZE), wanted=lambda: True)
    target = DeviceTarget.take(roots, spec, 1)
    stack.callback(target.close)
    return target, lambda: Path(device).read_bytes()[MIB + SIZE :].strip(b"X")


def of_a_format(site: Any, _: Path, stack: ExitStack) -> tuple[Target, Behind]:
    if not (shutil.which("qemu-nbd") and shutil.which("qemu-img")):
        pytest.skip("qemu-utils is not installed: `make tools` as root")
    site.image(b"A" * (SIZE - 512))
    spec = replace(site.spec(), target=volumespec.parse_volume({
        "driver": "qcow2", "host": "web1", "file": {"driver": "file", "filename": f"{site.backup}/R/root.qcow2"},
    }))  # fmt: skip
    member = open_member(site.roots, spec, size=SIZE - 512)  # its image is of whole clusters: larger
    staged = StagedTarget.take(site.roots, member, 1)
    target = FormatTarget(spec.target.volume, staged, site.roots, compress=False)
    stack.callback(target.close)

    def behind() -> bytes:
        view = memoryview(bytearray(512))
        target.pread_into(view, SIZE - 512)
        return bytes(view).strip(b"\0")

    return target, behind


def of_nothing(*_: Any) -> tuple[Target, Behind]:
    return NullTarget(SIZE), lambda: b""


def of_a_filter(site: Any, place: Path, stack: ExitStack) -> tuple[Target, Behind]:
    image, behind = of_a_file(site, place, stack)
    return filter_target(DebugVolume(FileVolume("/t"), ()), image), behind


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("make", [of_a_file, of_a_device, of_a_format, of_nothing, of_a_filter])
def test_a_target_refuses_what_lies_behind_its_end(make, site, tmp_path, stack):
    target, behind = make(site, tmp_path, stack)
    end = SIZE - (512 if make is of_a_format else 0)
    block = memoryview(b"b" * 4096)
    target.pwrite(block, end - 4096)
    target.zero(end - 8192, 4096)
    for offset in (end - 4095, end, end + MIB, -1):
        for write in (lambda at: target.pwrite(block, at), lambda at: target.zero(at, 4096)):
            with pytest.raises(VolumeError, match="do not lie within its") as refused:
                write(offset)
            assert (refused.value.errno, refused.value.operation) == (errno.EINVAL, "internal")
    target.flush()
    assert behind() == b""
