"""The names of files, file systems and devices: equal for one thing at two times, different for two things."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from unmounting import unmount

from blockworker.system.identity import same_thing, which_device, which_file

KINDS = ("ext4", "xfs", "btrfs")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and loop devices are made by root")


@pytest.fixture(params=KINDS)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An image with a new file system."""
    tool = f"mkfs.{request.param}"
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is missing")
    path = tmp_path / f"{request.param}.img"
    path.touch()
    os.truncate(path, 320 << 20)
    subprocess.run([tool, "-q", path], check=True, capture_output=True)
    return path


@contextmanager
def mounted(image: Path, *, device: str = "") -> Iterator[Path]:
    """The image's file system; ``device``: a loop device of the image, else one is made."""
    place = image.with_suffix(".mounted")
    place.mkdir(exist_ok=True)
    what = [device] if device else ["-o", "loop", image]
    subprocess.run(["mount", *what, place], check=True, capture_output=True)
    try:
        yield place
    finally:
        unmount(place)


def attached(file: Path) -> str:
    """A loop device of a file, which is made where it is missing."""
    if not file.exists():
        file.touch()
        os.truncate(file, 1 << 20)
    return subprocess.check_output(["losetup", "-f", "--show", file], text=True).strip()


def named(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return which_file(fd)
    finally:
        os.close(fd)


@AS_ROOT
def test_a_file_and_its_file_system_keep_their_names_when_mounted_again_under_another_number(image):
    with mounted(image) as place:
        (place / "file").write_bytes(b"A")
        (place / "other").write_bytes(b"B")
        before, number = named(place / "file"), (place / "file").stat().st_dev
        assert before != named(place / "other")
        device = attached(image)  # while the first one is there, so that it has another number
    try:
        with mounted(image, device=device) as place:
            assert named(place / "file") == before
            if image.stem != "btrfs":  # its st_dev is of no device, and often comes out the same
                assert (place / "file").stat().st_dev != number
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@AS_ROOT
def test_another_file_with_the_same_inode_number_has_another_name(image):
    with mounted(image) as place:
        file = place / "file"
        file.write_bytes(b"A")
        before, inode = named(file), file.stat().st_ino
        for _ in range(100):
            file.unlink()
            file.write_bytes(b"A")
            if file.stat().st_ino == inode:
                break
        assert file.stat().st_ino == inode or image.stem == "btrfs"  # which never gives a number again
        assert named(file) != before


@AS_ROOT
def test_two_file_systems_have_two_names_though_their_files_have_one_handle(image, tmp_path):
    other = tmp_path / "other.img"
    with mounted(image) as place:
        first = named(place)
    subprocess.run(["cp", "--sparse=always", image, other], check=True)  # it is mostly holes
    subprocess.run([f"mkfs.{image.stem}", "-q", *(["-F"] if image.stem == "ext4" else ["-f"]), other], check=True)
    with mounted(other) as place:
        second = named(place)
    assert first.rpartition("/")[0] != second.rpartition("/")[0]
    if image.stem == "ext4":
        assert first.rpartition("/")[2] == second.rpartition("/")[2]


def test_a_name_is_never_made_of_the_number_of_a_device_alone(tmp_path):
    (tmp_path / "file").touch()
    system, _, handle = named(tmp_path / "file").rpartition("/")
    assert system.split(":")[0] in ("uuid", "fsid", "mount", "device", "boot")
    assert handle


@AS_ROOT
def test_a_loop_device_with_another_file_of_the_same_name_is_another_device(tmp_path):
    file = tmp_path / "disk"
    names = []
    for number in range(2):
        device = attached(file)
        try:
            names.append(which_device(os.stat(device).st_rdev, device))
            assert which_device(os.stat(device).st_rdev, device) == names[-1]
        finally:
            subprocess.run(["losetup", "-d", device], check=True)
        file.rename(tmp_path / f"away{number}")
    assert names[0] != names[1]


@AS_ROOT
def test_a_partition_that_begins_elsewhere_is_another_device(tmp_path):
    file = tmp_path / "disk"
    file.touch()
    os.truncate(file, 16 << 20)
    device = subprocess.check_output(["losetup", "-fP", "--show", file], text=True).strip()
    names = []
    try:
        for start in ("2048", "4096"):
            if subprocess.run(["addpart", device, "1", start, "8192"], capture_output=True, check=False).returncode:
                pytest.skip("this kernel makes no partitions of loop devices")
            names.append(which_device(os.stat(f"{device}p1").st_rdev, f"{device}p1"))
            subprocess.run(["delpart", device, "1"], check=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert names[0] != names[1]


@AS_ROOT
@pytest.mark.parametrize("image", ["ext4"], indirect=True)  # others do not give out an inode again at once
def test_a_loop_device_with_a_new_file_that_got_the_inode_of_the_old_one_is_another_device(image):
    with mounted(image) as place:
        names, inodes = [], []
        for _ in range(2):
            device = attached(place / "disk")
            try:
                names.append(which_device(os.stat(device).st_rdev, device))
                inodes.append((place / "disk").stat().st_ino)
            finally:
                subprocess.run(["losetup", "-d", device], check=True)
            (place / "disk").unlink()
    assert inodes[0] == inodes[1], "otherwise this proves nothing"
    assert not same_thing(*names)
    assert same_thing(names[0], names[0].partition(" @")[0]), "a name that an earlier version has noted"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("loop/x:/a @b/1 @b1:x", "loop/x:/a @c/2 @b1:x", False, id="a mark in a path"),
        pytest.param("path:/dev/vdb @b1:7", "path:/dev/vdb @b1:7", True, id="the same disk in one boot"),
        pytest.param("path:/dev/vdb @b1:7", "path:/dev/vdb @b1:8", False, id="a disk that was swapped in one boot"),
        pytest.param("path:/dev/vdb @b1:7", "path:/dev/vdb @b2:8", True, id="numbers of two boots tell nothing"),
        pytest.param("path:/dev/vdb @b1:7", "path:/dev/vdc @b1:7", False, id="another name"),
        pytest.param("mount:nfs:a:/x/1-01", "mount:nfs:b:/x/1-01", True, id="a server that has two names"),
        pytest.param("mount:nfs:a:/x/1-01", "mount:nfs:a:/x/1-02", False, id="another file of a server"),
        pytest.param("uuid:1/1-01", "uuid:2/1-01", False, id="one handle in two file systems"),
        pytest.param("serial:A", "serial:A", True, id="one serial number"),
        pytest.param("serial:A", "serial:B", False, id="another serial number"),
    ],
)  # fmt: skip
def test_parts_of_a_name_that_hold_within_a_boot_are_compared_within_a_boot(one, other, same):
    assert same_thing(one, other) is same
    assert same_thing(other, one) is same
