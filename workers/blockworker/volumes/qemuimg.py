"""QEMU's image tool, in the cage, on files that are open here already: it opens no path of its own choice.

Every file is handed over as a descriptor, and every image with its format and without a layer below.  Each function
raises JobFailed, with the name of the file: the tool is missing, says what is wrong, or its time is over.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Sequence
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import SECTOR
from blockworker.cage import Cage, kernel_cage
from blockworker.cage.limits import PATIENCE, Patience
from blockworker.cage.tool import Ended, run_tool

_TOOL: Final = "qemu-img"
_CLUSTER: Final = 2 << 20  # bytes; qcow2's largest
_LEAKS: Final = 3  # exit code of a check: clusters that nobody uses, and nothing worse
_UNCHECKED: Final = 63  # exit code of a check: the format has none


def path_of(fd: int) -> str:
    """How a program that ``fd`` was handed to opens it."""
    return f"/dev/fd/{fd}"


def size_of_image(size: int) -> int:
    """The size of an image of a format that holds so many bytes: whole sectors, the rest zeros."""
    return -(-size // SECTOR) * SECTOR


class ImageTool:
    """``qemu-img`` on one open file.  ``label``: what people call the file."""

    def __init__(
        self, fd: int, form: str, label: str, *, cage: Cage | None = None, patience: Patience = PATIENCE
    ) -> None:
        self._fd, self._form, self._label = fd, form, label
        self._cage, self._patience = cage or kernel_cage(), patience

    def create(self, size: int, words: Sequence[str], name: str) -> None:
        """Make the file an empty image of ``size`` bytes.  ``words``: more of the tool's; ``name``: what some formats
        write into the image as their own.

        A qcow2 is made in whole clusters, for QEMU compresses nothing less; ``finish`` cuts it to its size.
        """
        with tempfile.TemporaryDirectory(prefix="blockjobs-") as place:
            link = os.path.join(place, name)
            os.symlink(path_of(self._fd), link)
            made = -(-size // _CLUSTER) * _CLUSTER if self._form == "qcow2" else size_of_image(size)
            self._run(["create", "-q", "-f", self._form, *words, link, str(made)])

    def describe(self) -> dict[str, Any]:
        """What the tool says of the image: ``virtual-size``, ``cluster-size``, ``format-specific``..."""
        described: dict[str, Any] = json.loads(self._run(["info", "--output=json", self._alone()]).output)
        return described

    def finish(self, size: int) -> None:
        """Cut the image to its size and prove that its own tables are sound; what an attempt that died left allocated
        is given back."""
        whole = size_of_image(size)
        if self.describe()["virtual-size"] != whole:
            self._run(["resize", "-q", "--shrink", self._alone(), str(whole)])
        if self.check():
            self._run(["check", "-q", "-r", "leaks", self._alone()], seconds=self._patience.check)

    def check(self) -> bool:
        """Prove that the image's own tables are sound; returns whether clusters leak, which is no damage."""
        ended = self._run(["check", "-q", self._alone()], _LEAKS, _UNCHECKED, seconds=self._patience.check)
        return ended.code == _LEAKS

    def _alone(self) -> str:
        file = {"driver": "file", "filename": path_of(self._fd)}
        return "json:" + json.dumps({"driver": self._form, "backing": None, "file": file})

    def _run(self, words: Sequence[str], *accepted: int, seconds: float | None = None) -> Ended:
        limit = self._patience.call if seconds is None else seconds
        ended = run_tool(self._cage, [_TOOL, *words], [self._fd], seconds=limit, patience=self._patience)
        what = f"{self._label}: {_TOOL} {words[0]}"
        if ended.code is None:
            raise JobFailed(errno.ETIMEDOUT, f"{what} was not through after {limit:.0f} s, and was killed")
        if ended.code not in (0, *accepted):
            said = verdict(ended.errors + ended.output, _TOOL).replace(path_of(self._fd), self._label)
            raise JobFailed(errno.EIO, f"{what}: {said or _way_of_ending(ended.code)}")
        return ended


def _way_of_ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with {code}"


def verdict(said: bytes, tool: str) -> str:
    """Why a tool gave up: the last line that begins with its name (what follows are hints), or the last at all."""
    lines = said.decode(errors="replace").strip().splitlines()
    own = [line.removeprefix(f"{tool}: ") for line in lines if line.startswith(f"{tool}: ")]
    return (own or lines or [""])[-1]
