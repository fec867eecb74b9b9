"""A file system in a file, whose power can be cut: nothing that was not made durable is there after the next mount."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from mounts import MAKE, PATH, memory
from unmounting import unmount

_SIZES: Final = {"xfs": 320 << 20, "ext4": 64 << 20}  # bytes; XFS makes none smaller than 300 MiB
_SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number
_WITHOUT_LOG: Final = 2  # the file system's own log is not written out either


class Disk:
    """One file system of a kind, on a loop device; ``top`` is where it is mounted."""

    def __init__(self, kind: str, device: str, top: Path) -> None:
        self.kind, self.device, self.top = kind, device, top

    def make(self) -> None:
        """Make the file system anew, empty, and mount it."""
        tool, *words = MAKE[self.kind]
        force = ["-f"] if self.kind == "xfs" else ["-F"]
        _call(shutil.which(tool, path=PATH) or tool, *words, *force, self.device)
        self.mount()

    def mount(self) -> None:
        _call("mount", self.device, str(self.top))

    def unmount(self) -> None:
        unmount(self.top)

    def cut_power(self) -> None:
        """Shut the file system down as a power cut does; every call on it fails until it is mounted again."""
        top = os.open(self.top, os.O_RDONLY)
        fcntl.ioctl(top, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG))
        os.close(top)

    def power_on(self) -> None:
        """Mount it again after a cut: the file system recovers by its own log."""
        self.unmount()
        self.mount()


@contextmanager
def disk_of(kind: str, place: Path) -> Iterator[Disk]:
    """A disk of this kind, not yet made; skips where it cannot be had, and says why."""
    if not shutil.which(MAKE[kind][0], path=PATH):
        pytest.skip(f"{MAKE[kind][0]} is not installed: `make tools` as root")
    if os.geteuid():
        pytest.skip("only root can mount")
    content = (memory(least=1 << 30) or place) / f"power-{os.getpid()}-{kind}"  # memory: a flush costs nothing there
    content.touch()
    os.truncate(content, _SIZES[kind])
    attached = subprocess.run(["losetup", "-f", "--show", str(content)], capture_output=True, text=True, check=False)
    if attached.returncode:
        content.unlink()
        pytest.skip(f"no loop device can be had here: {attached.stderr.strip()}")
    top = place / kind
    top.mkdir()
    disk = Disk(kind, attached.stdout.strip(), top)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(top)], capture_output=True, check=False)
        _call("losetup", "-d", disk.device)
        content.unlink()


def _call(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
