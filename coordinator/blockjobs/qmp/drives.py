"""A target that is named by its file: what ``drive-backup`` and ``drive-mirror`` make of filename, format and mode.

The file is on the source's host.  ``existing``: it is there, and is replaced at the commit; ``absolute-paths``: it is
made, whatever was there before.  The format is never probed: raw unless said otherwise.

An image that holds not all of the source lies on a layer: one that is made on the source's (``sync: top``) or on the
source itself (``none``), one that is there on the layer that it names: to name the image is to name that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.volumespec import FORMATS, FileVolume, FormatVolume, HostedVolume, Volume
from blockjobs.qmp.errors import QmpError
from blockjobs.qmp.fleet import Sight
from blockjobs.registry.nodes import Node

_RAW: Final = ("raw", "file")  # QEMU's two names of no format
_MADE: Final = "absolute-paths"  # the default mode
_UNKNOWN: Final = {
    "existing": "Unknown driver '{}'",
    _MADE: "Unknown file format '{}'",
}


def is_made(arguments: Mapping[str, Any]) -> bool:
    """Whether the target need not be there."""
    return _mode(arguments) == _MADE


def side(arguments: Mapping[str, Any]) -> str:
    """As what the target's host has to look at it."""
    return "new" if is_made(arguments) else "target"


def target(source: Node, arguments: Mapping[str, Any]) -> Node:
    """The node that a command means by its ``target``; nobody else can name it.

    Raises:
        QmpError: there is no such format, or this cannot be the path of a file.
    """
    name, form = arguments["target"], arguments.get("format", "raw")
    if form not in (*_RAW, *FORMATS):
        raise QmpError(_UNKNOWN[_mode(arguments)].format(form))
    try:
        volume: Volume = FileVolume(volumespec.checked_path(name))
    except BadInput as wrong:
        verb = "create" if is_made(arguments) else "open"
        raise QmpError(f"Could not {verb} '{name}': {wrong}") from None
    if form in FORMATS:
        volume = FormatVolume(form, volume, _layer(source, arguments) if is_made(arguments) else None)
    elif is_made(arguments) and arguments["sync"] == "none":
        raise QmpError(f"Backing file not supported for file format '{form}'")
    return Node(name, HostedVolume(source.volume.host, volume), {"driver": volume.driver})


def _layer(source: Node, arguments: Mapping[str, Any]) -> Volume | None:
    """What an image that is made lies on."""
    match arguments["sync"]:
        case "top":
            image = volumespec.formatted(source.volume.volume)
            return image.backing if image else None
        case "none":
            return source.volume.volume
        case _:
            return None


def on_its_layer(node: Node, arguments: Mapping[str, Any], sight: Sight) -> Node:
    """A target that is there, on the layer that it names, where that is needed.

    Raises:
        QmpError: what it names cannot be the path of an image.
    """
    image = volumespec.formatted(node.volume.volume)
    if image is None or is_made(arguments) or arguments["sync"] == "full" or not sight.backing:
        return node
    place = os.path.normpath(os.path.join(os.path.dirname(volumespec.label(image)), sight.backing))
    try:
        layer = volumespec.in_format(FileVolume(volumespec.checked_path(place)), sight.backing_format)
    except BadInput as wrong:
        raise QmpError(f"Could not open backing file: {wrong}") from None
    return replace(node, volume=replace(node.volume, volume=replace(image, backing=layer)))


def _mode(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("mode", _MADE))
