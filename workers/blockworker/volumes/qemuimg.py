"""QEMU's image tool, on files that are open here already: it opens no path of its own choice.

Every file is handed over as a descriptor, and every image with its format and without a layer below.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import SECTOR

PACKAGE: Final = "qemu-utils"  # Debian's name of what brings the tools
_CLUSTER: Final = 2 << 20  # bytes; qcow2's largest
_LEAKS: Final = 3  # exit code of a check: clusters that nobody uses, and nothing worse


def path_of(fd: int) -> str:
    """How a program that ``fd`` was handed to opens it."""
    return f"/dev/fd/{fd}"


def size_of_image(size: int) -> int:
    """The size of an image of a format that holds so many bytes: whole sectors, the rest zeros."""
    return -(-size // SECTOR) * SECTOR


def create(fd: int, form: str, size: int, words: Sequence[str], name: str) -> None:
    """Make the open file an empty image of ``size`` bytes.  ``words``: more of the tool's; ``name``: what some formats
    write into the image as their own.

    A qcow2 is made in whole clusters, for QEMU compresses nothing less; ``finish`` cuts it to its size.

    Raises:
        JobFailed: the tool is missing, or says what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="blockjobs-") as place:
        link = os.path.join(place, name)
        os.symlink(path_of(fd), link)
        made = -(-size // _CLUSTER) * _CLUSTER if form == "qcow2" else size_of_image(size)
        _run(["qemu-img", "create", "-q", "-f", form, *words, link, str(made)], fd)


def describe(fd: int, form: str) -> dict[str, Any]:
    """What the tool tells of an image: ``virtual-size``, ``cluster-size``, ``format-specific``..."""
    told: dict[str, Any] = json.loads(_run(["qemu-img", "info", "--output=json", _alone(fd, form)], fd).stdout)
    return told


def finish(fd: int, form: str, size: int) -> None:
    """Cut the image to its size and prove that its own tables are sound; what an attempt that died left allocated is
    given back.

    Raises:
        JobFailed: it is damaged.
    """
    whole = size_of_image(size)
    if describe(fd, form)["virtual-size"] != whole:
        _run(["qemu-img", "resize", "-q", "--shrink", _alone(fd, form), str(whole)], fd)
    if _run(["qemu-img", "check", "-q", _alone(fd, form)], fd, _LEAKS).returncode == _LEAKS:
        _run(["qemu-img", "check", "-q", "-r", "leaks", _alone(fd, form)], fd)


def _alone(fd: int, form: str) -> str:
    return "json:" + json.dumps({"driver": form, "backing": None, "file": {"driver": "file", "filename": path_of(fd)}})


def _run(argv: list[str], fd: int, *accepted: int) -> subprocess.CompletedProcess[bytes]:
    try:
        done = subprocess.run(argv, pass_fds=[fd], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise missing(argv[0], error) from None
    if done.returncode not in (0, *accepted):
        said = verdict(done.stderr + done.stdout, argv[0]) or f"ended with {done.returncode}"
        raise JobFailed(errno.EIO, f"{' '.join(argv[:2])}: {said}")
    return done


def missing(tool: str, error: OSError) -> JobFailed:
    """Why a tool could not be started."""
    if error.errno == errno.ENOENT:
        return JobFailed(errno.ENOTSUP, f"images of a format need {tool} on this host (Debian's package {PACKAGE})")
    return JobFailed(error.errno or errno.EIO, f"{tool}: {os.strerror(error.errno or errno.EIO)}")


def verdict(said: bytes, tool: str) -> str:
    """Why a tool gave up: the last line that begins with its name (what follows are hints), or the last at all."""
    lines = said.decode(errors="replace").strip().splitlines()
    own = [line.removeprefix(f"{tool}: ") for line in lines if line.startswith(f"{tool}: ")]
    return (own or lines or [""])[-1]
