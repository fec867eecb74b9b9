"""The layers of an image as options for QEMU: every file is opened here, beneath the host's roots, and handed over.

Files named in an image (a backing file, a data file) are never opened: an image that needs a file not named in its
volume is refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, assert_never

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import (
    DebugVolume,
    DeviceVolume,
    FileVolume,
    FormatVolume,
    NullVolume,
    OtherVolume,
    Volume,
    rule_keys,
    volume_label,
)
from blockworker.host.roots import Roots
from blockworker.records.devices import open_source as open_device
from blockworker.volumes import qemuimg
from blockworker.volumes.direct import drop_cache, takes_direct
from blockworker.volumes.export import duplicate_for_export
from blockworker.volumes.headers import expect_header

Open = Callable[[FileVolume | DeviceVolume], int]  # a descriptor owned by the caller; raises JobFailed


def opener_beneath_roots(roots: Roots) -> Open:
    """An opener for the volumes that the host's configuration allows to be read."""

    def open_(volume: FileVolume | DeviceVolume) -> int:
        if isinstance(volume, DeviceVolume):
            return open_device(roots, volume.filename)
        return roots.open_source(volume.filename)

    return open_


class Layers:
    """A volume as QEMU's options, with the descriptors for reading."""

    def __init__(self, open_: Open, *, shared: bool = False, direct: bool = False) -> None:
        """``direct``: files are read from their medium; devices always are, as far as possible."""
        self._open, self._shared, self._direct = open_, shared, direct
        self.from_medium = True  # up to now
        self.files: dict[int, str] = {}  # descriptor -> name, the topmost first

    def node(self, volume: Volume) -> dict[str, Any]:
        """QEMU's options for a volume. Raises JobFailed: a file cannot be opened, or has the wrong format."""
        match volume:
            case FileVolume() | DeviceVolume():
                fd = self._keep(self._open(volume), volume.filename)
                locking = {"locking": "off"} if self._shared else {}
                cache = self._cache(fd) if self._direct or isinstance(volume, DeviceVolume) else {}
                return {"driver": volume.driver, "filename": qemuimg.path_of(fd), **locking, **cache}
            case NullVolume(size, zeroes, latency):
                return {"driver": "null-co", "size": size, "read-zeroes": zeroes, "latency-ns": latency}
            case DebugVolume(image, rules):
                faults = {"inject-error": [*map(rule_keys, rules)]} if rules else {}  # QEMU takes no empty list
                return {"driver": "blkdebug", "image": self.node(image), **faults}
            case FormatVolume(driver, file, backing):
                node = {"driver": driver, "file": self.node(file)}
                expect_header(list(self.files)[-1], volume)
                return {**node, "backing": backing and self._below(backing)}
            case OtherVolume():
                raise JobFailed(errno.EINVAL, f"{volume_label(volume)} cannot be a layer of an image")
            case _:
                assert_never(volume)

    def close(self) -> None:
        for fd in self.files:
            os.close(fd)
        self.files = {}

    def _cache(self, fd: int) -> dict[str, Any]:
        """QEMU's options for reading past the page cache; if QEMU cannot, the cache is dropped now."""
        if takes_direct(fd):
            return {"cache": {"direct": True}}
        with suppress(OSError):
            os.fdatasync(fd)
        self.from_medium = drop_cache(fd) and self.from_medium
        return {}

    def _below(self, volume: Volume) -> dict[str, Any]:
        """A layer below: with a ``filename`` of ``file``, or QEMU would use the name in the image's header."""
        node = self.node(volume)
        return {"driver": "raw", "file": node} if isinstance(volume, FileVolume | DeviceVolume) else node

    def _keep(self, fd: int, name: str) -> int:
        kept = duplicate_for_export(fd)
        os.close(fd)
        self.files[kept] = name
        return kept
