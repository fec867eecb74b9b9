"""QEMU's tools have limits of time and memory, and none of them outlives whoever started it."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed, VolumeError
from blockworker.system.cage import kernel_cage
from blockworker.system.cage.limits import MEMORY, ToolPatience
from blockworker.system.cage.tool import run_tool
from blockworker.volumes import open_source
from blockworker.volumes.export import Export, duplicate_for_export
from blockworker.volumes.nbd import NbdError
from blockworker.volumes.qemuimg import ImageTool, path_of

MIB = 1 << 20
SHORT = ToolPatience(start=5, answer=0.3, call=0.3, death=5)
pytestmark = [
    pytest.mark.skipif(not shutil.which("qemu-nbd"), reason="qemu-utils is not installed: `make tools` as root"),
    pytest.mark.skipif(bool(kernel_cage().lack), reason=f"this kernel has {kernel_cage().lack}"),
]


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M"], check=True)
    return path


def sleepers() -> list[psutil.Process]:
    """The stand-ins of QEMU's tools that this process has started and that are still there."""
    return [child for child in psutil.Process().children() if child.name() == "sleep"]


@contextmanager
def exported(path, **more):
    fd = duplicate_for_export(os.open(path, os.O_RDWR))
    try:
        node = {"driver": "qcow2", "file": {"driver": "file", "filename": path_of(fd)}}
        export = Export(node, {fd: str(path)}, writable=True, patience=SHORT, answer=SHORT.answer, **more)
        try:
            yield export, psutil.Process(export._process.pid)
        finally:
            export.close()
    finally:
        os.close(fd)


ASKED = {
    "a read": lambda export: export.read(memoryview(bytearray(512)), 0),
    "a write": lambda export: export.write(memoryview(b"x" * 512), 0),
    "a flush": lambda export: export.flush(),
    "what is allocated": lambda export: list(export.states(0, MIB)),
    "zeros": lambda export: export.zero(0, MIB),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_a_server_that_stops_is_killed_when_its_time_for_an_answer_is_over(image, ask):
    with exported(image) as (export, server):
        ask(export)  # the control: it answers
        server.suspend()
        began = time.monotonic()
        for _ in range(6):  # on each connection, and once more on one that is broken
            with pytest.raises(NbdError, match="the server did not answer in time"):
                ask(export)
        assert time.monotonic() - began < 6 * SHORT.answer
        server.wait(5)


def test_a_server_that_is_only_slow_is_no_broken_one(image):
    with exported(image) as (export, server):
        server.suspend()
        go_on = threading.Timer(SHORT.answer / 2, server.resume)
        go_on.start()
        export.write(memoryview(b"x" * 512), 0)
        go_on.join()
        assert server.is_running()


def test_a_source_that_does_not_answer_is_named(site, image, monkeypatch):
    path = site.images / "disk.qcow2"
    image.rename(path)
    volume = volumespec.parse_volume(
        {"host": "web1", "driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
    ).volume  # fmt: skip
    source = open_source(volume, site.roots, answer=SHORT.answer)
    try:
        psutil.Process(source._export._process.pid).suspend()
        with pytest.raises(VolumeError) as failed:
            next(source.extents(0, source.size))
    finally:
        source.close()
    assert failed.value.text == f"read of {path} at offset 0: the server did not answer in time"


def test_a_server_that_never_says_a_word_is_killed(image, program):
    program("qemu-nbd", "exec sleep 1000")
    fd = duplicate_for_export(os.open(image, os.O_RDONLY))
    files = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(JobFailed, match=f"^{image}: the server did not answer in time"):
            Export({"driver": "qcow2"}, {fd: str(image)}, patience=ToolPatience(start=0.3))
    finally:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == files - 1
    assert not sleepers()


# --- qemu-img ---------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A shell script in the place of a tool."""

    def make(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return make


CALLS = {
    "create": lambda tool: tool.create(MIB, [], "disk.qcow2"),
    "info": lambda tool: tool.describe(),
    "check": lambda tool: tool.faults(SHORT.call),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_tool_that_does_not_end_is_killed_and_its_file_is_named(image, program, what):
    program("qemu-img", "exec sleep 1000")
    fd = os.open(image, os.O_RDWR)
    try:
        with pytest.raises(JobFailed) as failed:
            CALLS[what](ImageTool(fd, "qcow2", str(image), patience=SHORT))
    finally:
        os.close(fd)
    assert failed.value.errno == errno.ETIMEDOUT
    assert failed.value.text == f"{image}: qemu-img {what} was not through after 0 s, and was killed"
    assert not sleepers()


def test_a_tool_is_ended_by_whoever_waits_for_it(image, program):
    program("qemu-img", "exec sleep 1000")
    fd = os.open(image, os.O_RDWR)

    def idle():
        raise InterruptedError

    try:
        with pytest.raises(InterruptedError):
            ImageTool(fd, "qcow2", str(image)).faults(60, idle=idle)
    finally:
        os.close(fd)
    assert not sleepers()


@pytest.mark.parametrize("where", ["output", "errors"])
def test_a_tool_that_talks_without_end_takes_no_memory(program, where):
    program("qemu-img", f"yes 0123456789012345678901234567890123456789 {'1>&2' if where == 'errors' else ''}")
    began = time.monotonic()
    ended = run_tool(kernel_cage(), ["qemu-img"], [], seconds=0.5)
    assert ended.code is None
    assert time.monotonic() - began < 15
    assert len(getattr(ended, where)) == MIB


# --- memory -----------------------------------------------------------------------------------------------


def test_a_server_has_a_limit_of_memory(image):
    with exported(image) as (_, server):
        assert server.rlimit(psutil.RLIMIT_AS) == (MEMORY, MEMORY)
        assert server.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert server.memory_info().vms < MEMORY / 4


def test_an_image_that_would_take_all_memory_is_damaged(tmp_path):
    """A check keeps two bytes for each cluster of the file; this file has 8 Gi of them and takes no room."""
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "1M"], check=True)
    try:
        os.truncate(path, 4 << 40)
    except OSError:
        pytest.skip("no file of 4 TiB can be made here")
    fd = os.open(path, os.O_RDWR)
    try:
        (fault,) = ImageTool(fd, "qcow2", str(path)).faults(60)
    finally:
        os.close(fd)
    assert fault.startswith(f"{path}: qemu-img check: ")


# --- whoever started a tool is gone ------------------------------------------------------------------------

STARTER = """
import os, sys, threading
from blockworker.volumes.export import Export, duplicate_for_export
from blockworker.volumes.qemuimg import path_of
import fcntl
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
kept = duplicate_for_export(fd)
node = {"driver": "qcow2", "file": {"driver": "file", "filename": path_of(kept)}}
def start():
    global export
    export = Export(node, {kept: sys.argv[1]}, writable=True)
    print(export._process.pid, flush=True)
    sys.stdin.readline()
thread = threading.Thread(target=start)
start() if sys.argv[2] == "main" else (thread.start(), thread.join())
print("ended", flush=True)
sys.stdin.readline()
"""


def started(image, how="main"):
    """A process with a server of its own, and the server."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(image), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return starter, psutil.Process(int(starter.stdout.readline()))


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_server_does_not_outlive_its_starter_and_keeps_no_lock(image, state):
    starter, server = started(image)
    with starter:
        fd = os.open(image, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if state == "stopped":
            server.suspend()
        starter.kill()
    gone(server)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_a_stopped_server_ends_with_the_thread_that_started_it(image):
    starter, server = started(image, "thread")
    with starter:
        server.suspend()
        starter.stdin.write("\n")
        starter.stdin.flush()
        assert starter.stdout.readline() == "ended\n"
        gone(server)
        assert starter.poll() is None, "the process itself goes on"
        starter.kill()


def gone(process):
    """Wait for a process that may have nobody who reaps it."""
    fd = os.pidfd_open(process.pid) if process.is_running() else -1
    if fd >= 0:
        assert select.select([fd], [], [], 10)[0], f"process {process.pid} goes on"
        os.close(fd)


def test_with_another_signal_a_stopped_server_would_keep_the_lock():
    """The negative control: a stopped process does not obey SIGTERM."""
    process = subprocess.Popen(["sleep", "1000"])
    process.send_signal(signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    process.send_signal(signal.SIGTERM)
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    process.kill()
    process.wait()


def test_who_is_to_start_for_a_process_that_is_gone_ends_at_once():
    argv = kernel_cage().command_line("qemu-nbd", ["--version"], [])
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0, "the control"
    argv[4] = "1"
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "whoever started this is gone\n")
    assert Path(argv[3]).name == "launch.py"
