"""How the image of a target in a format is made: like the one that it replaces, on the layer that its volume names."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import FormatVolume, formatted, label
from blockworker.copy.digests import CHUNK
from blockworker.system.cage import Cage
from blockworker.volumes.headers import MAGIC, expect_header
from blockworker.volumes.qemuimg import ImageTool

_GRAIN: Final = 64 << 10  # bytes of an image that are compressed together, unless it is told otherwise
_STREAM: Final = "streamOptimized"  # the kind of vmdk that holds compressed data


def rewritable(volume: FormatVolume, *, compress: bool) -> bool:
    """Whether a range can be written again: an attempt that goes on may write what the one before has written."""
    return not (volume.driver == "vmdk" and compress)


def words_for(
    volume: FormatVolume, size: int, existing: int | None, *, compress: bool, cage: Cage | None = None
) -> tuple[str, ...]:
    """How a target's image is to be made: like the one that it replaces, if there is one of its format (a descriptor),
    and on the layer that its volume names.

    Raises:
        JobFailed: compressed data was asked for, and the image cannot hold it.
    """
    options: dict[str, Any] = {"subformat": _STREAM} if volume.driver == "vmdk" and compress else {}
    if existing is not None and os.pread(existing, 4, 0) == MAGIC[volume.driver]:
        expect_header(existing, replace(volume, alone=True))
        options = _like(ImageTool(existing, volume.driver, label(volume), cage=cage))
        if compress and "cluster_size" in options:  # a cluster is compressed once: it has to lie within a chunk
            options["cluster_size"] = min(options["cluster_size"], CHUNK)
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


def cluster_size(words: Sequence[str]) -> int:
    """The bytes of an image that are compressed together, of one that these words of the tool made."""
    found = re.search(r"\bcluster_size=([0-9]+)", " ".join(words))
    return int(found[1]) if found else _GRAIN


def _like(image: ImageTool) -> dict[str, Any]:
    """The tool's options that make an image of the same kind."""
    told = image.describe()
    data = told["format-specific"]["data"]
    if told["format"] == "vmdk":
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


def look_into(fd: int, volume: FormatVolume, cage: Cage | None = None) -> Contents:
    """What an image says, for somebody who only looks.  Raises JobFailed."""
    expect_header(fd, replace(volume, alone=True))
    told = ImageTool(fd, volume.driver, label(volume), cage=cage).describe()
    return Contents(told["virtual-size"], told.get("backing-filename", ""), told.get("backing-filename-format", ""))
