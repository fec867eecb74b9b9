"""The cage of QEMU's tools: no image opens a file that was not handed over, and the control without a cage does.

The headers are looked at before QEMU sees an image; here that is left out, so that nothing but the cage is in the way.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import FileVolume, FormatVolume
from blockworker.system.cage import Cage, kernel_cage, launch
from blockworker.targets.opening import open_member
from blockworker.volumes import open_source
from blockworker.volumes.export import Export, duplicate_for_export
from blockworker.volumes.qemuimg import ImageTool, path_of
from blockworker.volumes.soundness import finish_image

MIB = 1 << 20
SECRET = b"THE SECRET OF THIS HOST"
UNCAGED = Cage(0, filters=False, uncaged=True)
pytestmark = [
    pytest.mark.skipif(not shutil.which("qemu-nbd"), reason="qemu-utils is not installed: `make tools` as root"),
    pytest.mark.skipif(bool(kernel_cage().lack), reason=f"this kernel has {kernel_cage().lack}"),
]


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "outside" / "secret.img"
    path.parent.mkdir()
    path.write_bytes(SECRET.ljust(MIB, b"#"))
    return path


# --- images that name another file: each makes one at ``path`` and returns its format --------------------


def sparse_vmdk(path, descriptor):
    """A vmdk whose header says capacity 0: QEMU takes it for a file that holds nothing but its descriptor."""
    header = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", 1, 3, 0, 128, 1, 20, 512, 0, 0, 0, 0, b"\n \r\n", 0)
    path.write_bytes(header.ljust(512, b"\0") + descriptor.encode().ljust(20 * 512, b"\0"))


def descriptor_of(kind, extent):
    return (
        f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="{kind}"\n\n{extent}\n\n'
        'ddb.adapterType = "ide"\nddb.geometry.sectors="63"\nddb.geometry.heads="16"\nddb.geometry.cylinders="1"\n'
    )


def vmdk_of(kind):
    def make(path, secret):
        sparse_vmdk(path, descriptor_of(kind, f'RW 8 FLAT "{secret}" 0'))
        return "vmdk"

    return make


def vmdk_as_text(path, secret):
    path.write_text(descriptor_of("monolithicFlat", f'RW 8 FLAT "{secret}" 0'))
    return "vmdk"


def vmdk_with_json(path, secret):
    name = "json:" + json.dumps({"driver": "raw", "file.filename": str(secret)})
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", path, "1M")
    return "qcow2"


def qcow2_with_data_file(path, secret):
    other = path.with_suffix(".data")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={other},data_file_raw=on", path, "1M")
    subprocess.run(["qemu-io", "-c", "write 0 1M", str(path)], check=True, capture_output=True)
    raw = path.read_bytes()
    name = str(secret).encode()
    assert len(name) <= len(str(other)) + 64
    at = raw.index(struct.pack(">II", 0x44415441, len(str(other))))  # the header extension with the name
    tail = struct.pack(">II", 0x44415441, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0") + bytes(8)
    path.write_bytes(raw[:at] + tail + raw[at + len(tail) :])
    return "qcow2"


def qcow2_with_backing(path, secret):
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", path)
    return "qcow2"


def qcow2_over_a_socket(path, secret):
    name = f"nbd+unix:///?socket={secret.parent}/socket"
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", path, "1M")
    return "qcow2"


def vmdk_with_parent(path, secret):
    below = secret.with_suffix(".vmdk")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", secret, below)
    qemu_img("create", "-q", "-f", "vmdk", "-b", below, "-F", "vmdk", path)
    return "vmdk"


NAMING = {
    "a monolithicFlat vmdk": vmdk_of("monolithicFlat"),
    "a twoGbMaxExtentFlat vmdk": vmdk_of("twoGbMaxExtentFlat"),
    "a vmfs vmdk": vmdk_of("vmfs"),
    "the text of a vmdk": vmdk_as_text,
    "a vmdk with a parent": vmdk_with_parent,
    "a data file": qcow2_with_data_file,
    "a backing file": qcow2_with_backing,
    "a json: name": vmdk_with_json,
    "a socket": qcow2_over_a_socket,
}


@contextmanager
def serving(secret):
    """The secret behind a socket of another program on this host."""
    path = secret.parent / "socket"
    server = subprocess.Popen(
        ["qemu-nbd", "-r", "-t", "-f", "raw", "-k", str(path), "--fork", "--pid-file", f"{path}.pid", str(secret)]
    )
    assert server.wait(10) == 0
    try:
        yield
    finally:
        os.kill(int(path.with_suffix(".pid").read_text()), 15)


def content(path, form, cage):
    """The first bytes of an image that nobody looked at before QEMU does."""
    fd = duplicate_for_export(os.open(path, os.O_RDONLY))
    try:
        export = Export(
            {"driver": form, "file": {"driver": "file", "filename": path_of(fd)}}, {fd: str(path)}, cage=cage
        )
        try:
            view = memoryview(bytearray(len(SECRET)))
            export.read(view, 0)
            return bytes(view)
        finally:
            export.close()
    finally:
        os.close(fd)


@pytest.mark.parametrize("make", NAMING.values(), ids=NAMING)
def test_no_image_opens_a_file_that_it_names_and_without_the_cage_it_does(tmp_path, secret, make):
    path = tmp_path / "image"
    with serving(secret):
        form = make(path, secret)
        assert content(path, form, UNCAGED) == SECRET, "the control: without the cage it is read"
        for abi in sorted({1, kernel_cage().abi}):
            with pytest.raises(JobFailed) as failed:
                content(path, form, replace(kernel_cage(), abi=abi))
            assert str(path) in failed.value.text
            assert "Permission denied" in failed.value.text


@pytest.mark.parametrize("make", [vmdk_of("monolithicFlat"), qcow2_with_data_file], ids=["vmdk", "qcow2"])
def test_a_file_that_an_image_names_is_not_opened_by_a_check_either(tmp_path, secret, make):
    path = tmp_path / "image"
    form = make(path, secret)
    fd = os.open(path, os.O_RDWR)
    try:
        assert ImageTool(fd, form, str(path), cage=UNCAGED).faults(60) == [], "the control: nothing is wrong with it"
        (fault,) = ImageTool(fd, form, str(path)).faults(60)
        assert fault.startswith(f"{path}: qemu-img check: Could not open '")
        assert fault.endswith("': Permission denied")
    finally:
        os.close(fd)


@pytest.mark.parametrize("abi", sorted({1, 2, 3, 5, kernel_cage().abi} & {*range(kernel_cage().abi + 1)}))
def test_what_was_handed_over_is_read_and_written_under_each_version_of_landlock(tmp_path, abi):
    path = tmp_path / "image.qcow2"
    cage = replace(kernel_cage(), abi=abi)
    path.touch()
    fd = duplicate_for_export(os.open(path, os.O_RDWR))
    try:
        tool = ImageTool(fd, "qcow2", str(path), cage=cage)
        tool.create(3 * MIB, [], "image.qcow2")
        node = {"driver": "qcow2", "file": {"driver": "file", "filename": path_of(fd)}}
        export = Export(node, {fd: str(path)}, writable=True, cage=cage)
        export.write(memoryview(b"x" * 1000), 70_000)
        export.flush()
        kinds = lock_kinds(path)
        export.close()
        assert kinds == {"OFDLCK"}, "locks that closing another descriptor of the file does not drop"
        finish_image(fd, FormatVolume("qcow2", FileVolume(str(path))), 3 * MIB, cage)
    finally:
        os.close(fd)
    assert content(path, "qcow2", cage) == bytes(len(SECRET))


def test_without_dev_null_qemu_takes_locks_that_are_easily_lost(tmp_path, monkeypatch):
    """The negative control of the locks above."""
    text = Path(launch.__file__).read_text()
    assert text.count('"/dev/null": ') == 1
    (tmp_path / "launch.py").write_text(text.replace('"/dev/null": ', '"/nowhere": '))
    monkeypatch.setattr(launch, "__file__", str(tmp_path / "launch.py"))
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    fd = duplicate_for_export(os.open(path, os.O_RDWR))
    try:
        node = {"driver": "qcow2", "file": {"driver": "file", "filename": path_of(fd)}}
        export = Export(node, {fd: str(path)}, writable=True)
        kinds = lock_kinds(path)
        export.close()
        assert "OFDLCK" not in kinds, "and those of the other kind are lost already where QEMU closed a descriptor"
    finally:
        os.close(fd)


def lock_kinds(path):
    """The kinds of record locks that are held on a file."""
    inode = os.stat(path).st_ino
    with open("/proc/locks", encoding="ascii") as file:
        return {line.split()[1] for line in file if f":{inode} " in line}


def test_a_file_that_is_handed_over_for_reading_is_not_written(tmp_path):
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    fd = duplicate_for_export(os.open(path, os.O_RDONLY))
    node = {"driver": "qcow2", "file": {"driver": "file", "filename": path_of(fd)}}
    try:
        Export(node, {fd: str(path)}, writable=True, cage=UNCAGED).close()  # the control: QEMU opens it for writing
        with pytest.raises(JobFailed) as failed:
            Export(node, {fd: str(path)}, writable=True)
    finally:
        os.close(fd)
    assert failed.value.text == f"Could not open '{path}': Permission denied"


@pytest.mark.parametrize("abi", sorted({1, kernel_cage().abi}))
def test_an_image_on_a_device_is_read_and_opens_nothing_else(tmp_path, secret, abi):
    path, cage = tmp_path / "image", replace(kernel_cage(), abi=abi)
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", path)
    os.truncate(path, 4 * MIB)
    done = subprocess.run(["losetup", "-f", "--show", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    loop = done.stdout.strip()
    try:
        for backing in ({"backing": None}, {}):
            fd = duplicate_for_export(os.open(loop, os.O_RDONLY))
            node = {"driver": "qcow2", "file": {"driver": "host_device", "filename": path_of(fd)}, **backing}
            try:
                if backing:
                    export = Export(node, {fd: loop}, cage=cage)
                    assert export.size == MIB
                    view = memoryview(bytearray(512))
                    export.read(view, 0)
                    assert bytes(view) == bytes(512)
                    export.close()
                else:
                    with pytest.raises(JobFailed, match="Permission denied"):
                        Export(node, {fd: loop}, cage=cage)
            finally:
                os.close(fd)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


# --- what a process in the cage may do --------------------------------------------------------------------


def test_a_tool_gains_no_rights_makes_no_core_and_has_a_filter_of_its_calls(tmp_path):
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    fd = duplicate_for_export(os.open(path, os.O_RDONLY))
    try:
        export = Export({"driver": "qcow2", "file": {"driver": "file", "filename": path_of(fd)}}, {fd: str(path)})
        try:
            pid = export._process.pid
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        finally:
            export.close()
    finally:
        os.close(fd)


def caged(act):
    """What ``act`` returns in a process of its own, which closes the cage itself: a word."""
    told, tell = os.pipe()
    if os.fork() == 0:
        try:
            os.write(tell, str(act()).encode())
        except BaseException as error:
            os.write(tell, repr(error).encode())
        os._exit(0)
    os.close(tell)
    os.wait()
    with os.fdopen(told) as file:
        return file.read()


def outcome(call):
    """ "done", or the name of the errno that a call ends with."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def test_a_program_opens_no_other_program():
    program = shutil.which("qemu-nbd")

    def both():
        return [outcome(lambda path=path: os.close(os.open(path, os.O_RDONLY))) for path in (program, "/usr/bin/env")]

    def restricted():
        before = both()
        launch.restrict_files(kernel_cage().abi, [], program)
        return [*before, *both()]

    assert caged(restricted) == str(["done", "done", "done", "EACCES"])


@pytest.mark.skipif(kernel_cage().abi < launch.SCOPES[0], reason="this kernel has no scopes of Landlock")
def test_a_tool_sends_no_signals_to_anybody_else():
    def restricted():
        before = outcome(lambda: os.kill(os.getppid(), 0))
        launch.restrict_files(kernel_cage().abi, [], shutil.which("qemu-nbd"))
        return [before, outcome(lambda: os.kill(os.getppid(), 0)), outcome(lambda: os.kill(os.getpid(), 0))]

    assert caged(restricted) == str(["done", "EPERM", "done"])


def test_no_call_that_makes_a_connection_is_let_through():
    libc = ctypes.CDLL(None, use_errno=True)
    _, make, connect = launch.MACHINES[os.uname().machine]
    calls = {
        "socket": (make, socket.AF_UNIX, socket.SOCK_STREAM, 0), "connect": (connect, -1, 0, 0),
        "io_uring_setup": (425, 0, 0, 0), "socket, by another table": (make | 1 << 30, socket.AF_UNIX, 0, 0),
    }  # fmt: skip

    def answers():
        return [errno.errorcode[ctypes.get_errno()] if libc.syscall(*call) < 0 else "done" for call in calls.values()]

    def restricted():
        before = answers()
        launch.restrict_calls()
        return [before, answers()]

    assert caged(restricted) == str([["done", "EBADF", "EFAULT", "ENOSYS"], ["EACCES"] * 4])


# --- where the kernel has no cage -------------------------------------------------------------------------


@pytest.mark.parametrize("lack", [{"abi": 0}, {"filters": False}], ids=["no Landlock", "no seccomp"])
def test_without_a_cage_formats_are_refused_unless_the_owner_of_the_host_allows_it(site, lack):
    path = site.images / "root.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    spec = site.spec(
        source=volumespec.parse_volume(f"web1:{site.image()}"),
        target=volumespec.parse_volume({"host": "web1", "driver": "qcow2", "file": {
            "driver": "file", "filename": f"{site.backup}/R/root.qcow2"}}),
    )  # fmt: skip
    image = volumespec.parse_volume(
        {"host": "web1", "driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
    ).volume  # fmt: skip
    roots = site.roots
    roots.cage = replace(kernel_cage(), **lack)
    for attempt in (lambda: open_source(image, roots), lambda: open_member(roots, spec, size=MIB)):
        with pytest.raises(JobFailed) as failed:
            attempt()
        assert failed.value.errno == errno.ENOTSUP
        assert "images of a format are refused: the kernel of this host has no" in failed.value.text
        assert "'uncaged-formats = true' in host.toml" in failed.value.text
        assert "\n" not in failed.value.text
    assert site.tree() == []
    roots.cage = replace(roots.cage, uncaged=True)
    open_source(image, roots).close()
    open_member(roots, spec, size=MIB)


def test_what_the_host_file_says_of_the_cage_is_what_its_roots_use(site):
    assert not site.roots.cage.uncaged
    assert type(site.roots)(replace(site.roots.config, uncaged_formats=True)).cage.uncaged
