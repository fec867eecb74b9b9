"""The two servers that stories are played on: QEMU's own storage daemon, and ours."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockjobs.process.spawn import spawn_child

BINARY: Final = "qemu-storage-daemon"
MISSING: Final = f"{BINARY} is not installed: `make tools` as root, or apt install qemu-system-common"
READY_LIMIT: Final = 60.0  # seconds for a fleet to stand; a busy machine takes ten
STOP_LIMIT: Final = 30.0
BLINK: Final = 0.02  # seconds between two looks
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where to connect to, and the folder that images may lie in."""

    socket: Path
    images: Path


def missing() -> str:
    """Why the original cannot be asked here; "" where it can."""
    return "" if shutil.which(BINARY) else MISSING


@contextmanager
def original(place: Path) -> Iterator[Stage]:
    """A qemu-storage-daemon on a socket that listens from the start.

    It greets twice who calls before its monitor stands, so its pid file is awaited, which it writes behind that.
    """
    place.mkdir(parents=True, exist_ok=True)
    path, pid = place / "qmp", place / "pid"
    with socket.socket(socket.AF_UNIX) as listener, (place / "log").open("wb") as log:
        listener.bind(str(path))
        listener.listen()
        number = listener.fileno()
        process = subprocess.Popen(
            [BINARY, "--chardev", f"socket,fd={number},server=on,wait=off,id=c", "--monitor", "chardev=c",
             "--pidfile", str(pid)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[number],
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - a system call, safe after a fork
        )  # fmt: skip
    try:
        _await_line(pid, "", process)
        yield Stage(path, place)
    finally:
        process.kill()
        process.wait()


@contextmanager
def ours(place: Path) -> Iterator[Stage]:
    """What ``blockjobs up`` runs, with one host that may replace what is there: QEMU's nodes are written over, too."""
    images, state, log = place / "images", place / "state", place / "up.log"
    images.mkdir(parents=True)
    (state / "hosts").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    (state / "hosts" / "here.toml").write_text("allow-overwrite = true\n")
    argv = [sys.executable, "-m", "blockjobs", "up", "--dir", str(state), "--host", f"here={images}", "--slots", "4"]
    process = spawn_child(argv, log=log, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        _await_line(log, "ready:", process)
        yield Stage(state / "qmp.sock", images)
    finally:
        process.send_signal(signal.SIGTERM)  # it stops all that it started, and in the right order
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _await_line(log: Path, start: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the file has a line that starts so."""
    deadline = time.monotonic() + READY_LIMIT
    while not (log.exists() and any(line.startswith(start) for line in log.read_text().splitlines())):
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}:\n{_tail(log)}"
        assert time.monotonic() < deadline, f"not ready:\n{_tail(log)}"
        select.select([], [], [], BLINK)


def _tail(log: Path) -> str:
    return log.read_text()[-2000:] if log.exists() else ""
