"""Images of a format: made, written, compared and looked into by QEMU's own tools, as any program sees them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

_TOOLS: Final = ("qemu-img", "qemu-nbd", "qemu-io")


def missing() -> str:
    """Why no image of a format can be had here; "" where it can."""
    absent = [tool for tool in _TOOLS if not shutil.which(tool)]
    return f"{absent[0]} is not installed: `make tools` as root, or apt install qemu-utils" if absent else ""


NEEDED: Final = pytest.mark.skipif(bool(missing()), reason=missing())


@dataclass(frozen=True)
class Image:
    """An image and the layer that it lies on; a raw one is any file."""

    path: Path
    form: str = "raw"
    below: Image | None = None

    @classmethod
    def create(cls, path: Path, form: str, size: int, below: Image | None = None, **options: object) -> Image:
        named = ["-b", below.path, "-F", below.form] if below else []
        told = ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []
        _tool("qemu-img", "create", "-q", "-f", form, *told, *named, path, size)
        return cls(path, form, below)

    def write(self, offset: int, length: int, pattern: int = 0xA5) -> None:
        _tool("qemu-io", "-f", self.form, "-c", f"write -P {pattern} {offset} {length}", self.path)

    def converted(self, path: Path, form: str) -> Image:
        _tool("qemu-img", "convert", "-f", self.form, "-O", form, self.path, path)
        return Image(path, form)

    @property
    def keys(self) -> dict[str, Any]:
        """What ``blockdev-add`` is told of it, the layers by name: no server has to follow what the image says."""
        file = {"driver": "file", "filename": str(self.path)}
        if self.form == "raw":
            return {"driver": "raw", "file": file}
        return {"driver": self.form, "file": file, "backing": self.below and self.below.keys}

    def same(self, other: Image) -> bool:
        argv = ["qemu-img", "compare", "-q", "-U", "-f", self.form, "-F", other.form, str(self.path), str(other.path)]
        return subprocess.run(argv, check=False).returncode == 0

    def info(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._ask("info"))
        return told

    def own(self) -> list[tuple[int, int]]:
        """Where its own layer holds data, as (start, length)."""
        return [
            (extent["start"], extent["length"])
            for extent in json.loads(self._ask("map")) if extent["data"] and not extent["depth"]
        ]  # fmt: skip

    def check(self) -> None:
        """Fails where anything is wrong with it."""
        _tool("qemu-img", "check", "-q", "-f", self.form, self.path)

    def _ask(self, what: str) -> str:
        return _tool("qemu-img", what, "-U", "--output=json", "-f", self.form, self.path)


def _tool(*argv: object) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}{done.stdout}"
    return done.stdout
