"""Which images lie on other images, read from disk: parents in manifests, and layers in image headers.

Names alone are read; a file that an image names is not opened.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.process.clock import seconds_since_boot
from blockworker.host.roots import Root, Roots
from blockworker.targets import manifest as manifests
from blockworker.targets.proof import MANIFEST
from blockworker.volumes.headers import named_files

_KEPT: Final = 1.0  # seconds
_DIRECTORIES: Final = 64  # number of directories whose layers are remembered
_looked: dict[tuple[int, int, str], tuple[float, dict[str, str]]] = {}
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Staying:
    """The backups that stay on this host: the named backups, and every file beside a leaving backup."""

    def __init__(self, roots: Roots, remaining: Collection[str], leaving: Collection[str]) -> None:
        self._roots, self._leaving = roots, frozenset(leaving)
        self._there: set[str] = set()
        self._needed: dict[str, str] = {}  # a name -> the image that needs the name
        self._seen: set[str] = set()
        directories: dict[str, list[str]] = {}
        for path in remaining:
            directories.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
        for directory, names in directories.items():
            self._look(directory, names)

    def any_beneath(self, base: str) -> bool:
        """Whether a staying and existing backup lies beneath a directory."""
        return any(Root(base or "/").holds(path) for path in self._there)

    def needs(self, target: Mapping[str, str]) -> str:
        """The reason why a target has to stay; "" if no image needs the target."""
        self._look(os.path.dirname(target["path"]), None)
        for name in (target["job"], target["path"]):
            if name in self._needed:
                return f"{target['path']} is needed: {self._needed[name]} lies on it"
        return ""

    def stay(self, path: str) -> None:
        """Move a leaving backup to the staying backups."""
        self._leaving -= {path}
        self._look(os.path.dirname(path), [os.path.basename(path)])

    def _look(self, path: str, names: list[str] | None) -> None:
        """Read the layers of some images of a directory, or of every file if ``names`` is None."""
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
            for below in _parent_names(
                _load_image_manifest(directory, name).get("parent")
            ):  # a job or a path, maybe relative
                self._needed[below] = self._needed[os.path.normpath(os.path.join(path, below))] = image
            self._there.add(image)


def lying_on(directory: int, path: str) -> str:
    """The name of an image that lies on the file ``path``, from the same open ``directory``; "" for none.

    An overlay made less than ``_KEPT`` seconds ago may be missed: thousands of jobs may share a directory, and each job
    would read the headers of every file.
    """
    key = (*_directory_id(directory), os.path.dirname(path))
    at, found = _looked.get(key, (-_KEPT, {}))
    if seconds_since_boot() >= at + _KEPT or path in found:  # a result that refuses is checked again
        found = _overlays_by_layer(directory, os.path.dirname(path))
        if len(_looked) >= _DIRECTORIES:
            _looked.clear()
        _looked[key] = (seconds_since_boot(), found)
    return found.get(path, "")


def _directory_id(directory: int) -> tuple[int, int]:
    st = os.fstat(directory)
    return st.st_dev, st.st_ino


def _overlays_by_layer(directory: int, place: str) -> dict[str, str]:
    """Map each file of a directory to the name of a file in the same directory that lies on the former."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(directory)):
        for below in layers_named(directory, place, name):
            if below != f"{place}/{name}":
                found.setdefault(below, name)
    return found


def _load_image_manifest(directory: int, name: str) -> dict[str, Any]:
    """Load the manifest of an image.  Raises OSError, or BadInput: the manifest is unknown to this release."""
    fd = os.open(name + MANIFEST, _FLAGS, dir_fd=directory)
    try:
        return manifests.load_manifest(f"/proc/self/fd/{fd}", changed=True)
    finally:
        os.close(fd)


def _parent_names(parent: Any) -> Iterator[str]:
    match parent:
        case str():
            _, colon, path = parent.partition(":/")
            yield f"/{path}" if colon else parent
        case Mapping():
            for value in parent.values():
                yield from _parent_names(value)


def layers_named(directory: int, place: str, name: str) -> list[str]:
    """Every path to which the layer names in an image may refer."""
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
    return [os.path.normpath(os.path.join(place, path)) for each in below for path in _paths_in_layer_name(each)]


def _paths_in_layer_name(name: str) -> Iterator[str]:
    """The paths in a layer name as QEMU writes the name: a path, ``file:PATH``, or ``json:`` with a node's options."""
    if name.startswith("json:"):
        with suppress(ValueError, RecursionError):
            yield from _texts_in_options(json.loads(name.removeprefix("json:")))
    elif name:
        yield name.removeprefix("file:")


def _texts_in_options(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value.removeprefix("file:")
        case Mapping():
            for each in value.values():
                yield from _texts_in_options(each)
