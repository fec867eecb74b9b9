"""What images lie on, as far as the disk tells: a manifest that names its parent, an image that names its layer.

Only names are read; nothing that an image names is opened.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.process.clock import boottime
from blockworker.host.roots import Root, Roots
from blockworker.targets import manifest as manifests
from blockworker.targets.proof import MANIFEST
from blockworker.volumes.headers import named_files

_KEPT: Final = 1.0  # seconds
_DIRECTORIES: Final = 64  # of which it is remembered what lies on what
_looked: dict[tuple[int, int, str], tuple[float, dict[str, str]]] = {}
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
        """Read what some images of a directory lie on; None: what every file in it lies on."""
        try:
            directory = self._roots.open_dir(path)
        except JobFailed:
            return
        try:
            for name in os.listdir(directory) if names is None else names:
                image = f"{path}/{name.removesuffix(MANIFEST)}"
                if image not in self._seen and image not in self._leaving:
                    self._seen.add(image)
                    self._read(directory, path, os.path.basename(image))
        finally:
            os.close(directory)

    def _read(self, directory: int, path: str, name: str) -> None:
        image = f"{path}/{name}"
        for below in layers_named(directory, path, name):
            self._needed[below] = image
        with suppress(OSError, BadInput):
            for below in _names(_manifest(directory, name).get("parent")):  # a job, or a path, maybe from here
                self._needed[below] = self._needed[os.path.normpath(os.path.join(path, below))] = image
            self._there.add(image)


def lying_on(directory: int, path: str) -> str:
    """The name of an image beside the file ``path`` that lies on it; "" for none.  ``directory``: an open one.

    An overlay that was made less than ``_KEPT`` seconds ago may not be seen: jobs of one directory come in thousands,
    and each would read the headers of all the others.
    """
    key = (*_which(directory), os.path.dirname(path))
    at, found = _looked.get(key, (-_KEPT, {}))
    if boottime() >= at + _KEPT or path in found:  # what would be refused is looked at anew
        found = _beside(directory, os.path.dirname(path))
        if len(_looked) >= _DIRECTORIES:
            _looked.clear()
        _looked[key] = (boottime(), found)
    return found.get(path, "")


def _which(directory: int) -> tuple[int, int]:
    st = os.fstat(directory)
    return st.st_dev, st.st_ino


def _beside(directory: int, place: str) -> dict[str, str]:
    """Every file of a directory that another one there lies on -> the name of that one."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(directory)):
        for below in layers_named(directory, place, name):
            if below != f"{place}/{name}":
                found.setdefault(below, name)
    return found


def _manifest(directory: int, name: str) -> dict[str, Any]:
    """Raises OSError, or BadInput: there is none that is known here."""
    fd = os.open(name + MANIFEST, _FLAGS, dir_fd=directory)
    try:
        return manifests.load(f"/proc/self/fd/{fd}", changed=True)
    finally:
        os.close(fd)


def _names(parent: Any) -> Iterator[str]:
    match parent:
        case str():
            _, colon, path = parent.partition(":/")
            yield f"/{path}" if colon else parent
        case Mapping():
            for value in parent.values():
                yield from _names(value)


def layers_named(directory: int, place: str, name: str) -> list[str]:
    """Every path that an image can mean by the names of the files that it lies on."""
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        below = named_files(fd)
    except OSError:
        return []
    finally:
        os.close(fd)
    return [os.path.normpath(os.path.join(place, path)) for each in below for path in _paths(each)]


def _paths(name: str) -> Iterator[str]:
    """The paths in a name as QEMU writes it: a path, ``file:PATH``, or ``json:`` with a node's options."""
    if name.startswith("json:"):
        with suppress(ValueError, RecursionError):
            yield from _texts(json.loads(name.removeprefix("json:")))
    elif name:
        yield name.removeprefix("file:")


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value.removeprefix("file:")
        case Mapping():
            for each in value.values():
                yield from _texts(each)
