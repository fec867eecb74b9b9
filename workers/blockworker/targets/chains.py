"""What backups lie on, as far as the disk tells: a manifest that names its parent, a qcow2 image its layer.

Only names are read; nothing that an image names is opened.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from blockjobs.model.errors import BadInput, JobFailed
from blockworker.roots import Root, Roots
from blockworker.targets import manifest as manifests
from blockworker.targets.publish import MANIFEST

_QCOW2: Final = b"QFI\xfb"
_LONGEST: Final = 1023  # bytes of a backing file's name in a qcow2 header
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Staying:
    """The backups that stay on this host: those that somebody names, and whatever else lies beside one that goes."""

    def __init__(self, roots: Roots, remaining: Collection[str], leaving: Collection[str]) -> None:
        self._roots, self._leaving = roots, frozenset(leaving)
        self._there: set[str] = set()
        self._needed: dict[str, str] = {}  # a name -> who needs it
        self._seen: set[str] = set()
        directories: dict[str, list[str]] = {}
        for path in remaining:
            directories.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
        for directory, names in directories.items():
            self._look(directory, names)

    def any_beneath(self, base: str) -> bool:
        """Whether any of those that stay, and are there, is beneath a directory."""
        return any(Root(base or "/").holds(path) for path in self._there)

    def needs(self, target: Mapping[str, str]) -> str:
        """Why a target has to stay; "" if nothing needs it."""
        self._look(os.path.dirname(target["path"]), None)
        for name in (target["job"], target["path"]):
            if name in self._needed:
                return f"{target['path']} is needed: {self._needed[name]} lies on it"
        return ""

    def stay(self, path: str) -> None:
        """One that was to go stays after all."""
        self._leaving -= {path}
        self._look(os.path.dirname(path), [os.path.basename(path)])

    def _look(self, path: str, names: list[str] | None) -> None:
        """Read the manifests of some images of a directory; of all: None."""
        try:
            directory = self._roots.open_dir(path)
        except JobFailed:
            return
        try:
            if names is None:
                names = [name.removesuffix(MANIFEST) for name in os.listdir(directory) if name.endswith(MANIFEST)]
            for name in names:
                image = f"{path}/{name}"
                if image not in self._seen and image not in self._leaving:
                    self._seen.add(image)
                    with suppress(OSError, BadInput):
                        for below in _below(directory, name):  # a job, or a path, maybe from here
                            self._needed[below] = self._needed[os.path.normpath(os.path.join(path, below))] = image
                        self._there.add(image)
        finally:
            os.close(directory)


def _below(directory: int, name: str) -> Iterator[str]:
    """Every name by which a published image says what it lies on."""
    fd = os.open(name + MANIFEST, _FLAGS, dir_fd=directory)
    try:
        manifest = manifests.load(f"/proc/self/fd/{fd}", changed=True)
    finally:
        os.close(fd)
    yield from _names(manifest.get("parent"))
    if manifest.get("format", "raw") != "raw":
        yield from _backing(directory, name)


def _names(parent: Any) -> Iterator[str]:
    match parent:
        case str():
            _, colon, path = parent.partition(":/")
            yield f"/{path}" if colon else parent
        case Mapping():
            for value in parent.values():
                yield from _names(value)


def _backing(directory: int, name: str) -> Iterator[str]:
    """The name in a qcow2 header."""
    fd = os.open(name, _FLAGS, dir_fd=directory)
    try:
        head = os.pread(fd, 20, 0)
        if head[:4] == _QCOW2 and len(head) == 20:
            at, length = struct.unpack(">QI", head[8:20])
            if at and 0 < length <= _LONGEST:
                yield os.pread(fd, length, at).decode(errors="replace").removeprefix("file:")
    finally:
        os.close(fd)
