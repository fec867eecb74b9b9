"""Creation of a formatted target image: with the options of the image it replaces, on the layer of its volume."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import FormatVolume, format_image, volume_label
from blockworker.copy.digests import CHUNK
from blockworker.system.cage import Cage
from blockworker.volumes.headers import MAGIC, expect_header
from blockworker.volumes.qemuimg import ImageTool

_GRAIN: Final = 64 << 10  # bytes of an image that are compressed together, unless an option says otherwise
_STREAM: Final = "streamOptimized"  # the kind of vmdk that holds compressed data


def is_rewritable(volume: FormatVolume, *, compress: bool) -> bool:
    """Whether a range can be written twice: a later attempt may write the ranges of the attempt before again."""
    return not (volume.driver == "vmdk" and compress)


def words_for(
    volume: FormatVolume, size: int, existing: int | None, *, compress: bool, cage: Cage | None = None
) -> tuple[str, ...]:
    """Options for QEMU's tool to make a target's image like ``existing``, on the layer that the volume names.

    ``existing``: a descriptor of the image to be replaced, or None; an image of another format has no influence.

    Raises:
        JobFailed: compressed data was asked for, and the image cannot hold compressed data.
    """
    options: dict[str, Any] = {"subformat": _STREAM} if volume.driver == "vmdk" and compress else {}
    if existing is not None and os.pread(existing, 4, 0) == MAGIC[volume.driver]:
        expect_header(existing, replace(volume, alone=True))
        options = _options_of_image(ImageTool(existing, volume.driver, volume_label(volume), cage=cage))
        if compress and "cluster_size" in options:  # a cluster is compressed as a whole: keep it within a chunk
            options["cluster_size"] = min(options["cluster_size"], CHUNK)
    kind = options.get("subformat")
    if volume.driver == "vmdk" and compress and kind != _STREAM:
        text = f"Compression is not supported: {volume_label(volume)} is a {kind} vmdk, a {_STREAM} one was expected"
        raise JobFailed(errno.ENOTSUP, text)
    if kind == _STREAM and size % _GRAIN:
        text = f"{volume_label(volume)}: a {_STREAM} vmdk holds a multiple of {_GRAIN} bytes, the source has {size}"
        raise JobFailed(errno.EINVAL, text)
    words = ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []
    if volume.backing is not None:
        below = format_image(volume.backing)
        words += ["-u", "-b", volume_label(volume.backing), "-F", below.driver if below else "raw"]
    return tuple(words)


def cluster_size(words: Sequence[str]) -> int:
    """The bytes compressed together in an image made with these options."""
    found = re.search(r"\bcluster_size=([0-9]+)", " ".join(words))
    return int(found[1]) if found else _GRAIN


def _options_of_image(image: ImageTool) -> dict[str, Any]:
    """The tool's options for an image of the same kind."""
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
    """Facts from an image's header: the size of its contents, and the layer below."""

    size: int
    backing: str = ""
    backing_format: str = ""


def look_into(fd: int, volume: FormatVolume, cage: Cage | None = None) -> Contents:
    """Read an image's facts without its layers.  Raises JobFailed."""
    expect_header(fd, replace(volume, alone=True))
    told = ImageTool(fd, volume.driver, volume_label(volume), cage=cage).describe()
    return Contents(told["virtual-size"], told.get("backing-filename", ""), told.get("backing-filename-format", ""))
