"""Disk images for the demo: real ext4 file systems with real files; one image is mostly holes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockjobs.model.errors import BlockjobsError

SBIN: Final = "/usr/sbin:/sbin"  # where distributions keep mke2fs, and not on everybody's PATH
PIECE: Final = 8 << 20  # bytes of an incompressible file


@dataclass(frozen=True, slots=True)
class DemoImage:
    """An image to make: host, name, and the part of the size taken by files, in hundredths."""

    host: str
    name: str
    filled: int


IMAGES: Final = (
    DemoImage("web1", "root", 60),
    DemoImage("web1", "logs", 6),  # mostly holes
    DemoImage("web2", "root", 60),
    DemoImage("db1", "data", 80),
    DemoImage("db1", "root", 50),
)


def e2fsprogs_path(name: str) -> str | None:
    """The path of a program of e2fsprogs."""
    return shutil.which(name) or shutil.which(name, path=SBIN)


def make_demo_image(image: DemoImage, path: Path, size: int, scratch: Path) -> None:
    """Make an image of ``size`` bytes; ``scratch``: a directory for temporary files."""
    tree = scratch / f"{image.host}-{image.name}"
    fill_directory(tree, size * image.filled // 100, seed=f"{image.host}-{image.name}")
    try:
        if mke2fs := e2fsprogs_path("mke2fs"):
            label = f"{image.host}-{image.name}"[:16]
            _run_program([mke2fs, "-q", "-F", "-t", "ext4", "-L", label, "-d", str(tree), str(path), f"{size >> 10}k"])
        else:
            with tarfile.open(path, "w") as archive:
                archive.add(tree, "files")
            os.truncate(path, max(size, path.stat().st_size))
    finally:
        shutil.rmtree(tree)


def fill_directory(tree: Path, size: int, *, seed: str) -> None:
    """Fill a directory with about ``size`` bytes: at most half from Python's library, the rest incompressible."""
    tree.mkdir(parents=True)
    left = size
    for source, name in library_files():
        length = source.stat().st_size
        if left - length < size // 2:
            break
        target = tree / "lib" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        left -= length + 4096  # a file system gives whole blocks
    (tree / "etc").mkdir()
    (tree / "etc" / "hostname").write_text(f"{seed}\n", encoding="utf-8")
    (tree / "var").mkdir()
    number = 0
    while left > 0:
        with (tree / "var" / f"blob-{number:04}").open("wb") as blob:
            blob.write(os.urandom(min(left, PIECE)))
        left -= PIECE
        number += 1


def library_files() -> Iterator[tuple[Path, Path]]:
    """The files of Python's library, and the names of these files within the library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in ("site-packages", "__pycache__", "test"))
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path, path.relative_to(root)


def check_demo_image(path: Path) -> None:
    """Check an image with ``e2fsck -fn``, if installed; raises BlockjobsError for a fault in the image."""
    if (e2fsck := e2fsprogs_path("e2fsck")) and e2fsprogs_path("mke2fs"):
        _run_program([e2fsck, "-fn", str(path)])


def data_at(path: Path, offset: int) -> int:
    """The first offset with data at or after ``offset``; without such data, the first data of the file."""
    with path.open("rb") as file:
        try:
            return os.lseek(file.fileno(), offset, os.SEEK_DATA)
        except OSError:
            return os.lseek(file.fileno(), 0, os.SEEK_DATA)


def are_files_equal(one: Path, other: Path) -> bool:
    """Whether two files are equal, bit for bit."""
    with one.open("rb") as left, other.open("rb") as right:
        while piece := left.read(PIECE):
            if piece != right.read(PIECE):
                return False
        return not right.read(1)


def _run_program(argv: list[str]) -> None:
    try:
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except subprocess.CalledProcessError as failed:
        said = (failed.stderr or failed.stdout or "").strip().splitlines()
        raise BlockjobsError(f"{' '.join(argv)}: {said[-1] if said else f'exit code {failed.returncode}'}") from None
