"""Images of a format: what an image says of other files is never followed, and what QEMU says is told plainly."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed, VolumeError
from blockworker.copy.salvage import is_of_sector
from blockworker.targets.staged import StagedTarget
from blockworker.volumes import open_source
from blockworker.volumes.base import VolumeGone
from blockworker.volumes.formats import FormatTarget
from blockworker.volumes.nbd import Connection, NbdError, NbdServerGone

MIB = 1 << 20
needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-nbd"), reason="qemu-utils is not installed: `make tools` as root"
)


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def image(path, form="qcow2", **more):
    return volumespec.parse_volume(
        {"host": "web1", "driver": form, "file": {"driver": "file", "filename": str(path)}, **more}
    ).volume  # fmt: skip


def refused(site, volume):
    with pytest.raises(JobFailed) as failed:
        open_source(volume, site.roots).close()
    return failed.value.text


@pytest.fixture
def secret(tmp_path):
    """What no job of this host may read: it lies outside of all roots."""
    path = tmp_path / "secret.img"
    path.write_bytes(b"S" * MIB)
    return path


@needs_qemu
def test_a_backing_file_that_an_image_names_is_not_read(site, secret):
    """CVE-2024-32498: whoever can write an image would choose the files that are read."""
    path = site.images / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", path)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", path, site.images / "control.img")
    assert (site.images / "control.img").read_bytes() == secret.read_bytes(), "who follows it does read the secret"
    assert refused(site, image(path)) == (
        f"{path} lies on '{secret}', which is not followed: 'backing' was expected, its volume or null"
    )
    source = open_source(image(path, backing=None), site.roots)
    try:
        read = bytearray(MIB)
        source.pread_into(memoryview(read), 0)
        assert read == bytes(MIB)
    finally:
        source.close()
    named = {"driver": "file", "filename": str(secret)}
    assert "outside the read roots" in refused(site, image(path, backing=named))


@needs_qemu
def test_a_data_file_that_an_image_names_is_not_read(site, secret):
    path = site.images / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={site.images}/data,data_file_raw=on", path, "1M")
    assert refused(site, image(path)) == f"{path} keeps its data in another file: that is not followed"
    assert refused(site, image(path, backing=None)) == f"{path} keeps its data in another file: that is not followed"


@needs_qemu
def test_a_parent_that_a_vmdk_names_is_not_read(site, secret):
    qemu_img("create", "-q", "-f", "vmdk", site.images / "base.vmdk", "1M")
    path = site.images / "top.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-b", site.images / "base.vmdk", "-F", "vmdk", path)
    assert "which is not followed" in refused(site, image(path, "vmdk"))


@pytest.mark.parametrize("form", volumespec.FORMATS)
@pytest.mark.parametrize("content", [b"", b"raw bytes", b"QFI\xfa" + bytes(200), b"COWD" + bytes(508)])
def test_what_is_not_of_the_format_is_refused(site, form, content):
    path = site.image(content)
    assert refused(site, image(path, form)) == f"{path}: Image is not in {form} format"


@needs_qemu
def test_the_words_of_qemu_name_the_file_and_not_its_descriptor(site):
    path = site.image(b"QFI\xfb" + struct.pack(">I", 99) + bytes(200))
    assert refused(site, image(path)) == f"{path}: Unsupported qcow2 version 99"


@needs_qemu
def test_an_image_that_a_program_has_locked_is_refused(site):
    path = site.images / "used.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    used = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        used.stdin.write(b"read 0 512\n")
        used.stdin.flush()
        used.stdout.readline()  # it has it open
        assert refused(site, image(path)) == f'{path}: Failed to get shared "write" lock'
    finally:
        used.communicate(b"quit\n")


def test_without_qemu_a_host_says_what_it_lacks(site, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    path = site.image(b"QFI\xfb" + struct.pack(">I", 3) + bytes(200))
    assert refused(site, image(path, backing=None)) == (
        "images of a format need qemu-nbd on this host (Debian's package qemu-utils)"
    )


@needs_qemu
def test_a_target_is_written_through_qemu_and_its_lock_is_held_by_it(site):
    spec = site.spec(target=volumespec.parse_volume({"host": "web1", "driver": "qcow2", "file": {
        "driver": "file", "filename": f"{site.backup}/R/root.qcow2"}}))  # fmt: skip
    site.image(b"A" * MIB)
    staged = StagedTarget.take(site.roots, site.opened(spec), 1)
    target = FormatTarget(spec.target.volume, staged, site.roots, compress=False)
    try:
        target.pwrite(memoryview(b"B" * 100), 70_000)
        read = bytearray(102)
        target.pread_into(memoryview(read), 69_999)
        assert read == b"\0" + b"B" * 100 + b"\0"
        target.flush()
        with pytest.raises(VolumeError) as beyond:
            target.pwrite(memoryview(b"x"), 1 << 40)
        assert beyond.value.errno in (errno.EINVAL, errno.ENOSPC)
        target.pread_into(memoryview(read), 0), "what was refused broke nothing"
    finally:
        target.close()


# --- the protocol -----------------------------------------------------------------------------------


@contextmanager
def said(*replies):
    """A client's socket to a server that says these bytes, whatever it is told, and goes."""
    ours, theirs = socket.socketpair()

    def say():
        with theirs, suppress(OSError):  # the client may be gone first
            for reply in replies:
                theirs.sendall(reply)
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(4096):
                pass

    server = threading.Thread(target=say)
    server.start()
    ours.settimeout(10)
    with ours:
        yield ours
    server.join()


GREETING = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)


def option(number, kind, text=b""):
    return struct.pack(">QIII", 0x3E889045565A9, number, kind, len(text)) + text


BEGUN = (
    GREETING, option(8, 1),
    option(10, 4, struct.pack(">I", 1) + b"base:allocation"),
    option(10, 4, struct.pack(">I", 2) + b"qemu:allocation-depth"), option(10, 1),
    option(7, 3, struct.pack(">HQH", 0, MIB, 1)), option(7, 1),
)  # fmt: skip


def chunk(kind, text=b"", *, handle=1, done=True):
    return struct.pack(">IHHQI", 0x668E33EF, int(done), kind, handle, len(text)) + text


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(BEGUN)), st.binary(max_size=64))
def test_whatever_a_server_says_a_client_gives_up_and_never_waits(begun, noise):
    with said(*BEGUN[:begun], noise) as sock, pytest.raises(NbdError):
        Connection(sock).read(memoryview(bytearray(16)), 0)


@pytest.mark.parametrize(
    ("reply", "wrong"),
    [
        (chunk(0x8001, struct.pack(">IH", 28, 0)), NbdError),
        (chunk(0x8002, struct.pack(">IHQ", 5, 0, 7)), NbdError),
        (chunk(0, handle=9), NbdServerGone),
        (b"\0" * 20, NbdServerGone),
        (chunk(1, struct.pack(">Q", 0) + b"x" * 16), NbdServerGone),
    ],
    ids=["no space", "an error at an offset", "another's reply", "no reply", "data that was not asked for"],
)  # fmt: skip
def test_a_write_that_is_refused_says_so(reply, wrong):
    with said(*BEGUN, reply) as sock, pytest.raises(wrong) as refusal:
        Connection(sock).write(memoryview(b"x" * 16), 0)
    assert type(refusal.value) is wrong
    if wrong is NbdError:
        assert refusal.value.text == os.strerror(refusal.value.errno)


def test_a_read_is_put_together_from_its_chunks():
    data = chunk(1, struct.pack(">Q", 4) + b"abcd", done=False)
    hole = chunk(2, struct.pack(">QI", 8, 8))
    view = bytearray(b"#" * 12)
    with said(*BEGUN, data, hole) as sock:
        Connection(sock).read(memoryview(view), 4)
    assert view == b"abcd" + bytes(8)


def test_a_chunk_outside_of_what_was_asked_for_is_not_taken():
    far = chunk(1, struct.pack(">Q", 4096) + b"abcd")
    with said(*BEGUN, far) as sock, pytest.raises(NbdServerGone):
        Connection(sock).read(memoryview(bytearray(4)), 0)


def test_states_join_what_two_contexts_say():
    allocation = struct.pack(">I", 1) + struct.pack(">IIII", 100, 0, 100, 3)
    depth = struct.pack(">I", 2) + struct.pack(">IIII", 50, 1, 150, 2)
    with said(*BEGUN, chunk(5, allocation, done=False), chunk(5, depth)) as sock:
        states = Connection(sock).states(0, 200)
    assert states == [(0, 50, True, 1), (50, 50, True, 2), (100, 100, False, 2)]


# --- a server that is gone ----------------------------------------------------------------------------


@needs_qemu
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_dead_qemu_is_noticed_while_nobody_asks_it_anything(site, side):
    """An attempt that is held, or waits for its limit of speed, reads and writes nothing."""
    if side == "source":
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(site.images / "root.img"), "8M"], check=True)
        volume = open_source(image(site.images / "root.img"), site.roots)
    else:
        spec = site.spec(target=volumespec.parse_volume({"host": "web1", "driver": "qcow2", "file": {
            "driver": "file", "filename": f"{site.backup}/R/root.qcow2"}}))  # fmt: skip
        site.image(b"A" * MIB)
        staged = StagedTarget.take(site.roots, site.opened(spec), 1)
        volume = FormatTarget(spec.target.volume, staged, site.roots, compress=False)
    try:
        volume.check_alive()
        process = volume._export._process
        process.kill()
        process.wait(10)
        with pytest.raises(VolumeGone):
            volume.check_alive()
        with pytest.raises(VolumeGone) as gone:
            volume.pread_into(memoryview(bytearray(4096)), 0)
        assert not is_of_sector(gone.value), "nothing is read around it"
    finally:
        volume.close()
