"""Images in a format: qcow2 and vmdk, read and written by QEMU, with the layers below them that their volume names.

What an image itself names (a backing file, a file for its data) is never opened: where it needs one that its volume
does not name, it is refused.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, assert_never

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import (
    SECTOR,
    DebugVolume,
    DeviceVolume,
    FileVolume,
    FormatVolume,
    InjectedError,
    NullVolume,
    OtherVolume,
    Volume,
    bottom,
    formatted,
    label,
)  # fmt: skip
from blockworker.roots import Roots
from blockworker.volumes import qemuimg
from blockworker.volumes.base import Extent, Identity, trouble
from blockworker.volumes.export import Export, handed
from blockworker.volumes.nbd import NbdError

_MAGIC: Final = {"qcow2": b"QFI\xfb", "vmdk": b"KDMV"}
_DATA_FILE: Final = 1 << 2  # of qcow2's incompatible features

_LONGEST: Final = 64 << 10  # bytes of a vmdk's descriptor that are looked at
_PARENT: Final = re.compile(rb'^\s*parentFileNameHint\s*=\s*"(.+?)"', re.MULTILINE)
_GRAIN: Final = 64 << 10  # bytes of a vmdk that are compressed together
_STREAM: Final = "streamOptimized"  # the kind of vmdk that holds compressed data


Open = Callable[[FileVolume | DeviceVolume], int]  # a descriptor that the caller owns; raises JobFailed


def by(roots: Roots) -> Open:
    """What the host's configuration allows to be read."""

    def open_(volume: FileVolume | DeviceVolume) -> int:
        if isinstance(volume, DeviceVolume):
            return roots.open_device(volume.filename)
        return roots.open_source(volume.filename)

    return open_


class Layers:
    """A volume as QEMU's options say it, with the descriptors that it is read from."""

    def __init__(self, open_: Open, *, shared: bool = False) -> None:
        self._open, self._shared = open_, shared
        self.files: dict[int, str] = {}  # the topmost first

    def node(self, volume: Volume) -> dict[str, Any]:
        """Raises JobFailed: a file cannot be opened, or is not what it is said to be."""
        match volume:
            case FileVolume() | DeviceVolume():
                fd = self._keep(self._open(volume), volume.filename)
                locking = {"locking": "off"} if self._shared else {}
                return {"driver": volume.driver, "filename": qemuimg.path_of(fd), **locking}
            case NullVolume(size, zeroes, latency):
                return {"driver": "null-co", "size": size, "read-zeroes": zeroes, "latency-ns": latency}
            case DebugVolume(image, rules):
                return {"driver": "blkdebug", "image": self.node(image), "inject-error": [*map(_rule, rules)]}
            case FormatVolume(driver, file, backing):
                node = {"driver": driver, "file": self.node(file)}
                expect(list(self.files)[-1], volume)
                return {**node, "backing": backing and self._layer(backing)}
            case OtherVolume():
                raise JobFailed(errno.EINVAL, f"{label(volume)} cannot be a layer of an image")
            case _:
                assert_never(volume)

    def close(self) -> None:
        for fd in self.files:
            os.close(fd)
        self.files = {}

    def _layer(self, volume: Volume) -> dict[str, Any]:
        """What an image lies on: to QEMU that has a format, if only raw."""
        node = self.node(volume)
        return node if isinstance(volume, FormatVolume) else {"driver": "raw", "file": node}

    def _keep(self, fd: int, name: str) -> int:
        kept = handed(fd)
        os.close(fd)
        self.files[kept] = name
        return kept


def _rule(rule: InjectedError) -> dict[str, Any]:
    keys: dict[str, Any] = {"event": rule.event, "errno": rule.errno, "once": rule.once}
    if rule.iotype is not None:
        keys["iotype"] = rule.iotype
    if rule.sector is not None:
        keys["sector"] = rule.sector
    return keys


def expect(fd: int, volume: FormatVolume) -> None:
    """Look at the header of an image before QEMU does.

    Raises:
        JobFailed: it is no such image, or it needs a file that its volume does not name.
    """
    header = os.pread(fd, 104, 0).ljust(104, b"\0")
    if header[:4] != _MAGIC[volume.driver]:
        raise JobFailed(errno.EINVAL, f"Image is not in {volume.driver} format")
    if volume.driver == "qcow2" and _has_data_file(header):
        raise JobFailed(errno.EINVAL, f"{label(volume)} keeps its data in another file: that is not followed")
    if volume.backing is None and not volume.alone and (name := _below(fd, header)):
        text = f"{label(volume)} lies on '{name}', which is not followed: 'backing' was expected, its volume or null"
        raise JobFailed(errno.EINVAL, text)


def _has_data_file(header: bytes) -> bool:
    """Of a qcow2; version 2 has no features."""
    version, features = struct.unpack(">I", header[4:8])[0], struct.unpack(">Q", header[72:80])[0]
    return bool(version >= 3 and features & _DATA_FILE)


def _below(fd: int, header: bytes) -> str:
    """The layer below that an image names."""
    if header[:4] == _MAGIC["qcow2"]:
        at, length = struct.unpack(">QI", header[8:20])
        return os.pread(fd, min(length, 1023), at).decode(errors="replace") if at else ""
    start, sectors = struct.unpack("<QQ", header[28:44])
    named = _PARENT.search(os.pread(fd, min(sectors * SECTOR, _LONGEST), start * SECTOR))
    return named[1].decode(errors="replace") if named else ""


def open_format(volume: FormatVolume, open_: Open, *, top_only: bool = False, shared: bool = False) -> FormatSource:
    """Open an image for reading; ``shared``: whether QEMU writes to it or not.  Raises JobFailed."""
    layers = Layers(open_, shared=shared)
    try:
        return FormatSource(layers, Export(layers.node(volume), layers.files), label(volume), top_only=top_only)
    except BaseException:
        layers.close()
        raise


class FormatSource:
    """``top_only``: what lies in layers below is none of the copy's business."""

    def __init__(self, layers: Layers, export: Export, label_: str, *, top_only: bool = False) -> None:
        self._layers, self._export, self._label = layers, export, label_
        self._top_only = top_only
        self.size = export.size

    def pread_into(self, view: memoryview, offset: int) -> None:
        try:
            self._export.read(view, offset)
        except NbdError as error:
            raise trouble("read", self._label, offset, len(view), error.errno, why=error.text) from None

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        pending: Extent | None = None
        try:
            for state in self._export.states(start, length):
                own = not self._top_only or state.depth == 1
                if pending is not None and (pending.data, pending.own) == (state.data and own, own):
                    pending = pending._replace(length=pending.length + state.length)
                    continue
                if pending is not None:
                    yield pending
                pending = Extent(state.start, state.length, state.data and own, own)
        except NbdError as error:
            raise trouble("read", self._label, start, length, error.errno, why=error.text) from None
        if pending is not None:
            yield pending

    def identity(self) -> Identity:
        """The file's, with the size of what is in it: the file grows with whatever is written."""
        st = os.fstat(next(iter(self._layers.files)))
        return Identity("file", st.st_dev, st.st_ino, self.size, st.st_mtime_ns, st.st_ctime_ns)

    def allocated(self) -> int:
        return sum(extent.length for extent in self.extents(0, self.size) if extent.data)

    def close(self) -> None:
        if self._layers.files:
            self._export.close()
            self._layers.close()


class Staging(Protocol):
    """The file that an image is made in."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class FormatTarget:
    """An image in a staging file, which it owns: the file's lock stays until QEMU is gone, too."""

    def __init__(self, volume: FormatVolume, staged: Staging, roots: Roots, *, compress: bool) -> None:
        """Raises JobFailed; then ``staged`` is still the caller's."""
        self._label, self._staged = label(volume), staged
        top, others = bottom(volume), by(roots)
        self._layers = Layers(lambda file: os.dup(staged.fileno()) if file == top else others(file))
        try:
            node = self._layers.node(replace(volume, alone=True))
            if compress:
                node = {"driver": "compress", "file": node}
            self._export = Export(node, self._layers.files, writable=True)
        except BaseException:
            self._layers.close()
            raise
        self.size = self._export.size

    def pwrite(self, view: memoryview, offset: int) -> None:
        self._do("write", lambda: self._export.write(view, offset), offset, len(view))

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._do("compare", lambda: self._export.read(view, offset), offset, len(view))

    def zero(self, offset: int, length: int) -> None:
        self._do("write", lambda: self._export.zero(offset, length), offset, length)

    def flush(self) -> None:
        self._do("flush", self._export.flush, 0, self.size)

    def close(self) -> None:
        if self._layers.files:
            self._export.close()
            self._layers.close()
        self._staged.close()

    def _do(self, operation: str, act: Callable[[], None], offset: int, length: int) -> None:
        try:
            act()
        except NbdError as error:
            raise trouble(operation, self._label, offset, length, error.errno, why=error.text) from None


# --- making one ---------------------------------------------------------------------------------------


def rewritable(volume: FormatVolume, *, compress: bool) -> bool:
    """Whether a range can be written again: an attempt that goes on may write what the one before has written."""
    return not (volume.driver == "vmdk" and compress)


def words_for(volume: FormatVolume, size: int, existing: int | None, *, compress: bool) -> tuple[str, ...]:
    """How a target's image is to be made: like the one that it replaces, if there is one of its format (a descriptor),
    and on the layer that its volume names.

    Raises:
        JobFailed: compressed data was asked for, and the image cannot hold it.
    """
    options: dict[str, Any] = {"subformat": _STREAM} if volume.driver == "vmdk" and compress else {}
    if existing is not None and os.pread(existing, 4, 0) == _MAGIC[volume.driver]:
        expect(existing, replace(volume, alone=True))
        options = _like(existing, volume.driver)
    kind = options.get("subformat")
    if volume.driver == "vmdk" and compress and kind != _STREAM:
        text = f"Compression is not supported: {label(volume)} is a {kind} vmdk, a {_STREAM} one was expected"
        raise JobFailed(errno.ENOTSUP, text)
    if kind == _STREAM and size % _GRAIN:
        text = f"{label(volume)}: a {_STREAM} vmdk holds a multiple of {_GRAIN} bytes, the source has {size}"
        raise JobFailed(errno.EINVAL, text)
    words = ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []
    if volume.backing is not None:
        below = formatted(volume.backing)
        words += ["-u", "-b", label(volume.backing), "-F", below.driver if below else "raw"]
    return tuple(words)


def _like(fd: int, form: str) -> dict[str, Any]:
    """The tool's options that make an image of the same kind."""
    told = qemuimg.describe(fd, form)
    data = told["format-specific"]["data"]
    if form == "vmdk":
        return {"subformat": data["create-type"]}
    return {
        "cluster_size": told["cluster-size"], "compat": data["compat"],
        "refcount_bits": data.get("refcount-bits", 16),
        **({"compression_type": data["compression-type"]} if data["compat"] != "0.10" else {}),
        **({"extended_l2": "on"} if data.get("extended-l2") else {}),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image says of itself: the size of what is in it, and the layer below that it names."""

    size: int
    backing: str = ""
    backing_format: str = ""


def look_into(fd: int, volume: FormatVolume) -> Contents:
    """What an image says, for somebody who only looks.  Raises JobFailed."""
    expect(fd, replace(volume, alone=True))
    told = qemuimg.describe(fd, volume.driver)
    return Contents(told["virtual-size"], told.get("backing-filename", ""), told.get("backing-filename-format", ""))
