"""QEMU as a guest's process has it: a storage daemon that opens an image, or says why it does not."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def daemon(path: Path | str, *, writable: bool = True, driver: str = "raw") -> list[str]:
    """The command of a storage daemon that opens an image and exports it."""
    file = "host_device" if str(path).startswith("/dev/") else "file"
    node = f"driver={driver},node-name=image,read-only={'off' if writable else 'on'}"
    node += f",file.driver={file},file.filename={path}"
    export = "type=nbd,id=export,node-name=image" + (",writable=on" if writable else "")
    return ["qemu-storage-daemon", "--blockdev", node, "--nbd-server", "addr.type=inet,addr.host=127.0.0.1,addr.port=0",
            "--export", export]  # fmt: skip


@contextmanager
def started(path: Path | str, tmp_path: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A storage daemon that has the image open, or has ended because it could not open it."""
    ready = tmp_path / "qemu.pid"
    ready.unlink(missing_ok=True)
    argv = [*daemon(path, **options), "--pidfile", str(ready)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(1000):
            if ready.exists() or process.poll() is not None:
                break
            select.select([], [], [], 0.01)
        assert ready.exists() or process.returncode, "it neither opened the image nor gave up"
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def qemu(path: Path | str, tmp_path: Path, **options: Any) -> Iterator[None]:
    """A storage daemon has the image open."""
    with started(path, tmp_path, **options) as process:
        assert process.poll() is None, "QEMU could not open the image"
        yield


def refusal(path: Path | str, tmp_path: Path, **options: Any) -> str:
    """Why a storage daemon does not open an image; "" where it does."""
    with started(path, tmp_path, **options) as process:
        if process.poll() is None:
            return ""
        assert process.stderr is not None
        return process.stderr.read()


def detach(device: str) -> None:
    """Detach a loop device; whoever looks at it meanwhile keeps it for a moment."""
    subprocess.run(["losetup", "-d", device], check=True)
    held = Path("/sys/block", Path(device).name, "loop/backing_file")
    for _ in range(1000):
        if not held.exists():
            return
        select.select([], [], [], 0.01)
    raise AssertionError(f"{device} stays attached")
