"""Headers and tables of images: which kinds are refused, and what damage is found before QEMU reads an image."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from damaged import count_cluster, counted_as_free, qcow2_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import FileVolume, FormatVolume
from blockworker.system.kernel import data_ranges
from blockworker.volumes import open_source
from blockworker.volumes.export import name_file
from blockworker.volumes.headers import MAGIC, Qcow2, expect_header, seems_formatted
from blockworker.volumes.soundness import damage_of, finish_image
from blockworker.volumes.vmdk import table_faults

MIB = 1 << 20
pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-img"), reason="qemu-utils is not installed: `make tools` as root"
)  # fmt: skip


def tool(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True)


def image(path, form, *options, size="64M", written=("0 1M", "40M 128k")):
    tool("qemu-img", "create", "-q", "-f", form, *options, path, size)
    for where in written:
        tool("qemu-io", "-f", form, "-c", f"write {where}", path)
    return path


def damage(path, form, **more):
    fd = os.open(path, os.O_RDWR)
    try:
        return damage_of(fd, FormatVolume(form, FileVolume(str(path))), None, **more)
    finally:
        os.close(fd)


# --- kinds of vmdk ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("monolithicFlat", "is the description of a vmdk whose data lies in other files"),
        ("twoGbMaxExtentFlat", "is the description of a vmdk whose data lies in other files"),
        ("twoGbMaxExtentSparse", "is the description of a vmdk whose data lies in other files"),
    ],
)
def test_a_vmdk_of_several_files_is_refused_by_its_kind(site, kind, said):
    path = image(site.images / "disk.vmdk", "vmdk", "-o", f"subformat={kind}", written=())
    parts = [part for part in site.images.iterdir() if part != path]
    assert parts, "its data lies in other files"
    for each, words in ((path, said), *((part, "") for part in parts)):
        with pytest.raises(JobFailed) as failed:
            open_source(FormatVolume("vmdk", FileVolume(str(each))), site.roots)
        assert failed.value.errno == errno.EINVAL
        assert failed.value.text.startswith(str(each))
        assert words in failed.value.text


@pytest.mark.parametrize("kind", ["vmfs", "fullDevice", "custom", "monolithicFlat", ""])
def test_a_description_within_a_vmdk_is_believed_by_its_kind(site, kind):
    path = image(site.images / "disk.vmdk", "vmdk", written=())
    raw = path.read_bytes()
    old = b'createType="monolithicSparse"'
    assert old in raw
    path.write_bytes(raw.replace(old, f'createType="{kind}"'.encode().ljust(len(old))))
    with pytest.raises(JobFailed) as failed:
        open_source(FormatVolume("vmdk", FileVolume(str(path))), site.roots)
    assert failed.value.text == (
        f"{path} is a vmdk of the kind '{kind}': one that is a single file was expected "
        "(monolithicSparse or streamOptimized)"
    )


def test_a_vmdk_with_capacity_0_is_refused(site):
    path = image(site.images / "disk.vmdk", "vmdk", written=())
    with path.open("r+b") as file:
        file.seek(12)
        file.write(bytes(8))
    with pytest.raises(JobFailed) as failed:
        open_source(FormatVolume("vmdk", FileVolume(str(path))), site.roots)
    assert "is a vmdk without data of its own (capacity 0)" in failed.value.text


# --- damage -----------------------------------------------------------------------------------------------

KINDS = {
    "qcow2": ("qcow2",),
    "qcow2, small clusters": ("qcow2", "-o", "cluster_size=4096"),
    "qcow2, extended": ("qcow2", "-o", "extended_l2=on"),
    "qcow2, version 2": ("qcow2", "-o", "compat=0.10"),
    "vmdk": ("vmdk",),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("size", ["64M", "67108352"], ids=["whole", "odd"])
def test_a_sound_image_has_no_damage_and_one_that_was_cut_has(tmp_path, kind, size):
    path = image(tmp_path / "disk", *kind, size=size, written=("0 1M", "40M 128k", "67107840 512"))
    assert damage(path, kind[0]) == []
    whole = path.stat().st_size
    for length in (whole - 70_000, whole // 2, 70_000, 600):
        os.truncate(path, length)
        found = damage(path, kind[0])
        assert found, f"cut to {length} of {whole} bytes"
        assert all(line.startswith(str(path)) for line in found)


def test_a_stream_of_a_vmdk_is_sound_until_it_is_cut(tmp_path):
    plain, path = tmp_path / "plain", tmp_path / "stream"
    plain.write_bytes(os.urandom(MIB))
    tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", plain, path)
    assert damage(path, "vmdk") == []
    os.truncate(path, path.stat().st_size - 1024)
    assert damage(path, "vmdk") != []


def lost(path):
    """A table of a qcow2 at a place that is no cluster's."""
    with path.open("r+b") as file:
        table = struct.unpack_from(">Q", file.read(104), 40)[0]
        file.seek(table)
        file.write(struct.pack(">Q", (1 << 63) | (1 << 40)))


DAMAGE = {
    "marked as corrupt": (qcow2_with(79, b"\2"), "is marked as corrupt"),
    "dirty": (qcow2_with(79, b"\1"), "was not closed by its last writer (dirty)"),
    "a table that is too small": (qcow2_with(24, struct.pack(">Q", 1 << 40)), "has a table of 1 entries"),
    "a table behind the end": (qcow2_with(40, struct.pack(">Q", 1 << 40)), "is cut: its table ends at"),
    "counts behind the end": (qcow2_with(48, struct.pack(">Q", 1 << 40)), "is cut: its counts end at"),
    "a count that is wrong": (counted_as_free, "qemu-img check: ERROR cluster 6 refcount=0 reference=1"),
    "a table that is lost": (lost, "qemu-img check: "),
}


@pytest.mark.parametrize(("change", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_of_a_qcow2_is_named_with_its_file(tmp_path, change, said):
    path = image(tmp_path / "disk.qcow2", "qcow2")
    change(path)
    found = damage(path, "qcow2")
    assert found[0].startswith(str(path))
    assert said in found[0]
    fd = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(JobFailed):  # and PREPARE takes no such image
            finish_image(fd, FormatVolume("qcow2", FileVolume(str(path))), 64 * MIB, None)
    finally:
        os.close(fd)


KINDS_OF_QCOW2 = {
    "as QEMU makes it": (),
    "of entries with bitmaps": ("-o", "cluster_size=128k,extended_l2=on"),
    "with all its tables": ("-o", "preallocation=metadata"),
}


@pytest.mark.parametrize("kind", KINDS_OF_QCOW2)
def test_a_qcow2_that_lost_its_last_bytes_of_data_is_damaged_though_qemu_reads_zeros(tmp_path, kind):
    size = 8 * MIB
    path = image(tmp_path / "disk", "qcow2", *KINDS_OF_QCOW2[kind], size=str(size), written=(f"{size - 512} 512",))
    assert damage(path, "qcow2") == []
    tool("qemu-io", "-f", "qcow2", "-c", "write 0 256k", path)
    assert damage(path, "qcow2") == []
    with path.open("r+b") as file:
        used = max(end for _, end in data_ranges(file.fileno(), 0, path.stat().st_size))
        file.truncate(used - 1)
    assert subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=False).returncode in (0, 3)
    (line,) = damage(path, "qcow2")
    assert line.startswith(f"{path} is cut: its data at byte ")


def test_a_qcow2_whose_file_ends_within_a_table_is_damaged_though_qemu_sees_only_unused_clusters(tmp_path):
    path = image(tmp_path / "disk", "qcow2", "-o", "cluster_size=4k", size="8M", written=("0 4k", "4100k 4k"))
    with path.open("r+b") as file:
        directory = struct.unpack_from(">Q", file.read(104), 40)[0]
        file.seek(directory + 8 * 2)  # of 2 MiB each: the table of what is at 4 MiB, and behind it its data
        table = struct.unpack(">Q", file.read(8))[0] & (1 << 56) - 512
        file.truncate(table + 8)
    assert subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=False).returncode in (0, 3)
    (line,) = damage(path, "qcow2")
    assert f"the table of its data from byte {4 * MIB} on ends at {table + 4096}, the file at {table + 8}" in line


@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_an_image_on_a_device_is_checked_as_one_in_a_file(tmp_path, form):
    path = image(tmp_path / "disk", form)
    done = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        assert damage(device, form) == []
        (counted_as_free if form == "qcow2" else qcow2_with(72, b"\1"))(device)
        (line,) = damage(device, form)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert ("qemu-img check: ERROR" if form == "qcow2" else "its last writer has not closed it") in line


def test_clusters_that_nobody_uses_are_no_damage_and_are_given_back(tmp_path):
    path = image(tmp_path / "disk.qcow2", "qcow2")
    count_cluster(path, 200, 1)
    os.truncate(path, 201 << 16)
    leaking = subprocess.run(["qemu-img", "check", str(path)], capture_output=True, check=False)
    assert leaking.returncode == 3, "the control"
    assert damage(path, "qcow2") == []
    fd = os.open(path, os.O_RDWR)
    finish_image(fd, FormatVolume("qcow2", FileVolume(str(path))), 64 * MIB, None)
    os.close(fd)
    assert subprocess.run(["qemu-img", "check", str(path)], capture_output=True, check=False).returncode == 0


def test_a_dirty_image_that_was_cut_under_its_writer_is_in_order(tmp_path):
    path = image(tmp_path / "disk.qcow2", "qcow2")
    qcow2_with(79, b"\1")(path)
    assert damage(path, "qcow2", crashed=True) == []
    qcow2_with(79, b"\2")(path)
    assert damage(path, "qcow2", crashed=True), "the control: corrupt is not in order"


def test_an_empty_vmdk_of_3_tib_is_checked_at_once(tmp_path):
    path = image(tmp_path / "disk.vmdk", "vmdk", size="3T", written=())
    assert damage(path, "vmdk", seconds=5) == []
    tool("qemu-io", "-f", "vmdk", "-c", "write 0 1M", path)
    with pytest.raises(JobFailed) as failed:
        damage(path, "vmdk", seconds=-1)
    assert failed.value.errno == errno.ETIMEDOUT
    assert failed.value.text.startswith(str(path))


# --- what is copied as raw bytes --------------------------------------------------------------------------


def test_what_begins_as_an_image_is_known_and_said_loudly_where_it_lies_on_another(tmp_path):
    base = image(tmp_path / "base.vmdk", "vmdk", written=())
    flat = image(tmp_path / "flat.vmdk", "vmdk", "-o", "subformat=monolithicFlat", written=())
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "vmdk", tmp_path / "top.qcow2")
    tool("qemu-img", "create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", tmp_path / "top.vmdk")
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/d", tmp_path / "data.qcow2", "1M")
    (tmp_path / "raw.img").write_bytes(b"\xeb\x63\x90" + bytes(1000))
    (tmp_path / "empty.img").touch()
    loud = ": WITHOUT THAT, A COPY OF ITS BYTES IS NO BACKUP"
    said = {
        image(tmp_path / "whole.qcow2", "qcow2"): "a qcow2 image",
        base: "a vmdk image",
        flat: "the description of a vmdk whose data lies in other files" + loud,
        tmp_path / "top.qcow2": f"a qcow2 image that lies on '{base}'" + loud,
        tmp_path / "top.vmdk": f"a vmdk image that lies on '{base}'" + loud,
        tmp_path / "data.qcow2": "a qcow2 image that lies on another file" + loud,
        tmp_path / "raw.img": "",
        tmp_path / "empty.img": "",
    }
    for path, words in said.items():
        fd = os.open(path, os.O_RDONLY)
        assert seems_formatted(fd) == words, path
        os.close(fd)


def test_a_name_in_an_image_does_not_reach_a_terminal_as_it_is(site):
    path = site.images / "top.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/x\x1b[2J\n", "-F", "raw", path, "1M")
    volume = volumespec.parse_volume(
        {"host": "web1", "driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
    ).volume  # fmt: skip
    with pytest.raises(JobFailed) as failed:
        open_source(volume, site.roots)
    assert f"{path} lies on '/x\\x1b[2J\\n'" in failed.value.text
    assert failed.value.text.isprintable()


def test_what_qemu_says_of_a_name_in_an_image_does_not_reach_a_terminal_as_it_is():
    said = name_file("Could not open '/x\x1b[2J': Permission denied", {10: "/srv/disk"})
    assert said == "/srv/disk: Could not open '/x\\x1b[2J': Permission denied"


BELOW = "Could not open backing file: "


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("", ""),
        ("Image is corrupt", "/top: Image is corrupt"),
        ("Could not open '/dev/fd/11': No such file", "Could not open '/below': No such file"),
        ("Could not open backing file: Invalid", "/below: Could not open backing file: Invalid"),
        (f"{2 * BELOW}Invalid", f"/lowest: {2 * BELOW}Invalid"),
    ],
)  # fmt: skip
def test_a_message_of_qemu_names_the_layer_that_it_is_about(said, named):
    assert name_file(said, {10: "/top", 11: "/below", 12: "/lowest"}) == named


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["qcow2", "vmdk"]), st.binary(max_size=700), st.lists(st.integers(0, 699), max_size=8))
def test_whatever_is_in_a_header_it_is_read_or_refused(tmp_path, form, content, ones):
    raw = bytearray(MAGIC[form] + content)
    for at in ones:
        raw[at : at + 1] = b"\xff" * (at < len(raw))
    path = tmp_path / "disk"
    path.write_bytes(raw)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert seems_formatted(fd).isprintable()
        with suppress(JobFailed):
            expect_header(fd, FormatVolume(form, FileVolume(str(path))))
        if form == "vmdk":
            assert all(fault.isprintable() for fault in table_faults(fd, str(path)))
        else:
            assert all(fault.isprintable() for fault in Qcow2.read(fd).faults(len(raw)))
    finally:
        os.close(fd)
