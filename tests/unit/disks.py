"""File systems in files that a test mounts and unmounts, at loop devices whose numbers change meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from unmounting import unmount

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MAKE = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q"), "btrfs": ("mkfs.btrfs", "-q")}


class Disk:
    """A new file system in ``file``, which can be mounted at ``top`` again and again."""

    def __init__(self, place: Path, kind: str = "ext4", mib: int = 320) -> None:
        if os.geteuid():
            pytest.skip("only root can mount")
        tool, *words = MAKE[kind]
        found = shutil.which(tool, path=PATH)
        if found is None:
            pytest.skip(f"{tool} is not installed: `make tools` as root")
        place.mkdir(parents=True, exist_ok=True)
        self.file, self.top, self._loops = place / "disk", place / "mnt", list[str]()
        self.top.mkdir()
        with self.file.open("wb") as file:
            file.truncate(mib << 20)
        subprocess.run([found, *words, str(self.file)], check=True, capture_output=True)

    def mount(self) -> None:
        """Mount it, at another loop device than before."""
        for _ in range(1 + bool(self._loops)):  # whoever takes the number of the last time is not let go
            done = subprocess.run(
                ["losetup", "-f", "--show", str(self.file)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"no loop device: {done.stderr.strip()}")
            self._loops.append(done.stdout.strip())
        done = subprocess.run(["mount", self._loops[-1], str(self.top)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"it cannot be mounted here: {done.stderr.strip()}")

    def umount(self) -> None:
        unmount(self.top)
        subprocess.run(["losetup", "-d", self._loops.pop()], check=True)

    def close(self) -> None:
        if os.path.ismount(self.top):
            subprocess.run(["umount", "--lazy", str(self.top)], check=False)
        for loop in self._loops:
            subprocess.run(["losetup", "-d", loop], check=False, capture_output=True)
        with suppress(FileNotFoundError):
            self.file.unlink()


@contextmanager
def disk(place: Path, kind: str = "ext4") -> Iterator[Disk]:
    """A file system that is mounted once, and gone afterwards."""
    made = Disk(place, kind)
    try:
        made.mount()
        yield made
    finally:
        made.close()


@contextmanager
def bound(directory: Path, top: Path) -> Iterator[None]:
    """``directory`` mounted at ``top`` as well."""
    if os.geteuid():
        pytest.skip("only root can mount")
    subprocess.run(["mount", "--bind", str(directory), str(top)], check=True)
    try:
        yield
    finally:
        unmount(top)
