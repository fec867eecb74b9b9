"""Where a test's files lie, if not in the usual place: memory, or a file system of its own in a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from unmounting import unmount

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MAKE = {
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "xfs, no reflink": ["mkfs.xfs", "-q", "-m", "reflink=0"],
    "btrfs": ["mkfs.btrfs", "-q"],
    "ext4": ["mkfs.ext4", "-q"],
    "ext4, whole seconds": ["mkfs.ext4", "-q", "-I", "128"],
}


def memory(least: int = 0) -> Path | None:
    """Where directories can be made in memory, if so many bytes are free there; None: the usual place."""
    place = Path("/dev/shm")  # noqa: S108 - for directories of their own in it
    return place if os.access(place, os.W_OK) and shutil.disk_usage(place).free >= least else None


@contextmanager
def mounted(kind: str, place: Path, gib: int = 2) -> Iterator[Path]:
    """A new file system of this kind, gone afterwards; skips where it cannot be had, and says why."""
    tool, *words = MAKE[kind]
    if not (found := shutil.which(tool, path=PATH)):
        pytest.skip(f"{tool} is not installed: `make tools` as root")
    if os.geteuid():
        pytest.skip("only root can mount")
    place.mkdir(parents=True, exist_ok=True)
    disk, top = place / "disk", place / "mnt"
    top.mkdir()
    with disk.open("wb") as file:
        file.truncate(gib << 30)
    made = subprocess.run([found, *words, str(disk)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    mount = subprocess.run(["mount", "-o", "loop", str(disk), str(top)], capture_output=True, text=True, check=False)
    if mount.returncode:
        disk.unlink()
        pytest.skip(f"{kind} cannot be mounted here: {mount.stderr.strip()}")
    try:
        yield top
    finally:
        try:
            unmount(top)
        except AssertionError:  # somebody stays in it: it goes with the last one
            subprocess.run(["umount", "--lazy", str(top)], check=False)
            raise
        finally:
            disk.unlink()
