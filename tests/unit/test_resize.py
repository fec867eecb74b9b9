"""An image gets another size where its host allows it, once for a permit; all else is refused and left as it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from blockworker.questions.resize import resize_image

MIB = 1 << 20
HELD = "import fcntl, sys; f = open(sys.argv[1], 'rb'); fcntl.lockf(f, fcntl.LOCK_SH); print(flush=True); input()"


class Asker:
    """Whoever permits a resize, once; and the jobs of the host."""

    def __init__(self, permits: int = 1, *, used: bool = False) -> None:
        self.permits, self.used, self.asked = permits, used, []

    def permitted(self) -> bool:
        self.permits -= 1
        return self.permits >= 0

    def in_use(self, read: str, written: str) -> bool:
        self.asked.append((read, written))
        return self.used

    def resize(self, site, path: Path, size: int):
        volume = {"host": "web1", "driver": "file", "filename": str(path)}
        return resize_image(site.roots, volume, size, in_use=self.in_use, permitted=self.permitted)


@pytest.fixture
def free(site):
    """A host that may overwrite."""
    return replace(site, allow_overwrite=True)


@pytest.fixture
def image(free):
    path = free.backup / "root.img"
    path.write_bytes(b"A" * MIB)
    return path


@pytest.mark.parametrize("size", [0, 1, 513, MIB, 3 * MIB])
def test_a_file_has_the_size_that_was_asked_for(free, image, size):
    asker = Asker()
    assert asker.resize(free, image, size) == {"size": size}
    assert image.read_bytes() == (b"A" * MIB + bytes(2 * MIB))[:size]
    st, above = image.stat(), free.backup.stat()
    assert asker.asked == [(f"{st.st_dev}:{st.st_ino}", f"{above.st_dev}:{above.st_ino}/root.img")]


def test_a_message_that_comes_twice_changes_nothing_and_is_not_answered(free, image):
    asker = Asker()
    assert asker.resize(free, image, 1) == {"size": 1}
    image.write_bytes(b"AB")
    assert asker.resize(free, image, 1) is None
    assert image.read_bytes() == b"AB"


def test_nothing_happens_once_the_asker_gave_up(free, image):
    assert Asker(permits=0).resize(free, image, 1) is None
    assert image.stat().st_size == MIB


def linked(path: Path) -> Path:
    os.link(path, path.with_name("other"))
    return path


def symlink(path: Path) -> Path:
    link = path.with_name("link")
    link.symlink_to(path.name)
    return link


def fifo(path: Path) -> Path:
    os.mkfifo(path.with_name("fifo"))
    return path.with_name("fifo")


@pytest.mark.parametrize(
    ("made", "code", "text"),
    [
        (lambda path: path.with_name("none"), errno.ENOENT, "image {} does not exist on host web1"),
        (symlink, errno.ELOOP, "image {} is or lies behind a symlink: a path without symlinks was expected"),
        (fifo, errno.EINVAL, "image {} is a FIFO: a regular file was expected"),
        (lambda path: path.parent, errno.EISDIR, "image {} is a directory: a regular file was expected"),
        (linked, errno.EMLINK, "{} has 2 hard links: a file with one was expected"),
        (lambda path: path / "/etc/passwd", errno.EACCES, "{} is outside the write roots of host web1"),
    ],
    ids=["missing", "symlink", "fifo", "directory", "hard link", "outside"],
)
def test_what_is_no_plain_file_of_ours_is_refused_and_costs_no_permit(free, image, made, code, text):
    path, asker = made(image), Asker()
    answer = asker.resize(free, path, 1)
    assert (answer["errno"], asker.permits) == (code, 1)
    assert answer["text"].startswith(text.format(path))
    assert image.stat().st_size == MIB


@pytest.mark.parametrize(
    "name",
    [
        ".root.img.0123abcd.part", ".root.img.0123abcd.blake3", ".root.img.0123abcd.manifest", ".root.img.0123abcd.cut",
        ".root.img.reserved", "root.img.blake3", "root.img.manifest.json", "root.img.part", ".blockjobs/R.journal",
        ".blockjobs/devices/0123.json",
    ],
)  # fmt: skip
def test_no_file_of_our_own_gets_another_size(free, name):
    path = free.backup / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"A" * MIB)
    asker = Asker()
    answer = asker.resize(free, path, 0)
    assert answer == {"errno": errno.EACCES, "text": f"{path} is a file of blockjobs' own: an image was expected"}
    assert (path.stat().st_size, asker.permits) == (MIB, 1)


@pytest.mark.parametrize("name", [".hidden.img", "part", ".img.0123abcd", "root.img.reserved"])
def test_a_name_that_only_looks_like_one_of_ours_is_anybodys(free, name):
    path = free.backup / name
    path.write_bytes(b"A" * MIB)
    assert Asker().resize(free, path, 1) == {"size": 1}


def test_only_where_the_host_allows_overwriting(site):
    path = site.backup / "root.img"
    path.write_bytes(b"A" * MIB)
    answer = Asker().resize(site, path, 1)
    assert answer == {"errno": errno.EACCES, "text": f"host web1 does not allow overwriting ({path})"}
    assert path.stat().st_size == MIB


def test_what_can_only_be_read_is_not_resized(free):
    path = free.image()
    assert Asker().resize(free, path, 1)["errno"] == errno.EACCES


def test_a_job_that_knows_the_file_by_another_name_is_in_the_way(free, image):
    answer = Asker(used=True).resize(free, image, 1)
    assert answer == {"errno": errno.EBUSY, "text": f"{image} is in use by a job that knows it by another name"}
    assert image.stat().st_size == MIB


def test_so_is_a_program_that_locks_its_image_as_qemu_does(free, image):
    with subprocess.Popen(
        [sys.executable, "-c", HELD, str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        answer = Asker().resize(free, image, 1)
        other.communicate(b"\n")
    assert answer == {"errno": errno.EBUSY, "text": f"{image} is locked by another program"}
    assert Asker().resize(free, image, 1) == {"size": 1}


def test_a_size_that_the_file_system_cannot_have_is_told_in_its_words(free, image, largest_file):
    assert Asker().resize(free, image, largest_file + 1) == {"errno": errno.EFBIG, "text": "File too large"}
    assert image.stat().st_size == MIB


def test_what_has_no_size_of_its_own_is_refused(free):
    volume = {"host": "web1", "driver": "null-co", "size": 1}
    answer = resize_image(free.roots, volume, 1, in_use=lambda *_: False, permitted=lambda: True)
    assert answer["errno"] == errno.EINVAL
