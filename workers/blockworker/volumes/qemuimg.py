"""QEMU's image tool, in the cage, on files opened before: the tool opens no path of its own choice.

Every file is handed over as a descriptor, and every image with its format and without a layer below. Every function
raises JobFailed, with the name of the file: the tool is missing, reports a fault, or its time is over.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Sequence
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import SECTOR, printable_text
from blockjobs.process.spawn import describe_end
from blockworker.system.cage import Cage, kernel_cage
from blockworker.system.cage.limits import PATIENCE, ToolPatience
from blockworker.system.cage.tool import Idle, ToolEnd, run_tool

_TOOL: Final = "qemu-img"
_CLUSTER: Final = 2 << 20  # bytes; qcow2's largest
_LEAKS: Final = 3  # exit code of a check: leaked clusters, and nothing worse


def path_of(fd: int) -> str:
    """The path by which a program that inherits ``fd`` opens the file."""
    return f"/dev/fd/{fd}"


def size_of_image(size: int) -> int:
    """The size of an image of a format for ``size`` bytes of content: whole sectors, the rest zeros."""
    return -(-size // SECTOR) * SECTOR


class ImageTool:
    """``qemu-img`` on one open file. ``label``: the file's name for people."""

    def __init__(
        self,
        fd: int,
        form: str,
        label: str,
        *,
        cage: Cage | None = None,
        patience: ToolPatience = PATIENCE,
        locks: bool = True,
    ) -> None:
        """``locks``: QEMU is kept from writing to the image meanwhile; a writing QEMU makes the tool fail."""
        self._fd, self._form, self._label = fd, form, label
        self._locking = {} if locks else {"locking": "off"}
        self._cage, self._patience = cage or kernel_cage(), patience

    def create(self, size: int, words: Sequence[str], name: str, below: int | None = None) -> None:
        """Make the file an empty image of ``size`` bytes.

        ``words``: further arguments of the tool; ``name``: the name that some formats write into the image; ``below``:
        a layer named in ``words``, which the tool may read.

        A qcow2 is made in whole clusters, as QEMU compresses only whole clusters; ``shrink`` cuts the image to its
        size.
        """
        with tempfile.TemporaryDirectory(prefix="blockjobs-") as place:
            link = os.path.join(place, name)
            os.symlink(path_of(self._fd), link)
            made = -(-size // _CLUSTER) * _CLUSTER if self._form == "qcow2" else size_of_image(size)
            self._succeed(["create", "-q", "-f", self._form, *words, link, str(made)], below)

    def describe(self) -> dict[str, Any]:
        """The tool's description of the image: ``virtual-size``, ``cluster-size``, ``format-specific``..."""
        described: dict[str, Any] = json.loads(self._succeed(["info", "--output=json", self._alone()]).output)
        return described

    def shrink(self, size: int) -> None:
        """Cut the image to the size that holds ``size`` bytes."""
        whole = size_of_image(size)
        if self.describe()["virtual-size"] != whole:
            self._succeed(["resize", "-q", "--shrink", self._alone(), str(whole)])

    def faults(self, seconds: float, *, repair_leaks: bool = False, idle: Idle = lambda: None) -> list[str]:
        """Faults found by QEMU's own check of the image's tables, a line; [] for none.

        Unused allocated clusters (leaks) are no fault; ``repair_leaks``: release them. ``idle``: see ``run_tool``.
        Raises JobFailed: ETIMEDOUT after ``seconds``.
        """
        words = ["check", "-q", *(["-r", "leaks"] if repair_leaks else []), self._alone()]
        ended = self._run(words, seconds, idle=idle)
        if ended.code in (0, _LEAKS):
            return []
        errors = [line for line in ended.errors.decode(errors="replace").splitlines() if line.startswith("ERROR")]
        if not errors:
            return [self._complaint(words, ended)]
        more = f" (and {len(errors) - 1} more)" if errors[1:] else ""
        return [f"{self._label}: {_TOOL} check: {printable_text(errors[0])}{more}"]

    def _alone(self) -> str:
        driver = "host_device" if stat.S_ISBLK(os.fstat(self._fd).st_mode) else "file"
        file = {"driver": driver, "filename": path_of(self._fd), **self._locking}
        return "json:" + json.dumps({"driver": self._form, "backing": None, "file": file})

    def _succeed(self, words: Sequence[str], *more: int | None) -> ToolEnd:
        ended = self._run(words, self._patience.call, *more)
        if ended.code:
            raise JobFailed(errno.EIO, self._complaint(words, ended))
        return ended

    def _run(self, words: Sequence[str], seconds: float, *more: int | None, idle: Idle = lambda: None) -> ToolEnd:
        files = [self._fd, *(fd for fd in more if fd is not None)]
        ended = run_tool(self._cage, [_TOOL, *words], files, seconds=seconds, patience=self._patience, idle=idle)
        if ended.code is None:
            text = f"{self._label}: {_TOOL} {words[0]} was not through after {seconds:.0f} s, and was killed"
            raise JobFailed(errno.ETIMEDOUT, text)
        return ended

    def _complaint(self, words: Sequence[str], ended: ToolEnd) -> str:
        """The tool's error text, with the file's name for people."""
        said = printable_text(tool_verdict(ended.errors + ended.output, _TOOL)).replace(path_of(self._fd), self._label)
        return f"{self._label}: {_TOOL} {words[0]}: {said or describe_end(ended.code or 0)}"


def tool_verdict(said: bytes, tool: str) -> str:
    """Why a tool gave up: the last line that begins with its name (hints may follow), else the last line."""
    lines = said.decode(errors="replace").strip().splitlines()
    own = [line.removeprefix(f"{tool}: ") for line in lines if line.startswith(f"{tool}: ")]
    return (own or lines or [""])[-1]
