"""Targets named by file: filename, format and mode of ``drive-backup`` and ``drive-mirror`` as a node.

The file is on the source's host.  ``existing``: the file exists, and is replaced at the commit; ``absolute-paths``: the
file is made, whatever existed before.  The format is never probed: raw unless the command says otherwise.

An image that holds only a part of the source lies on a layer.  With ``sync: top`` a new image is made on the source's
layer, with ``none`` on the source itself; an existing image lies on the layer named in its header, so that a command
names this layer by naming the image.
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
    """Whether the command makes the target, so that the file need not exist."""
    return _drive_mode(arguments) == _MADE


def target_side(arguments: Mapping[str, Any]) -> str:
    """The role in which the target's host checks the target."""
    return "new" if is_made(arguments) else "target"


def target_node(source: Node, arguments: Mapping[str, Any]) -> Node:
    """The node for the ``target`` of a command; no other command can name this node.

    Raises:
        QmpError: the format is unknown, or ``target`` cannot be the path of a file.
    """
    name, form = arguments["target"], arguments.get("format", "raw")
    if form not in (*_RAW, *FORMATS):
        raise QmpError(_UNKNOWN[_drive_mode(arguments)].format(form))
    try:
        volume: Volume = FileVolume(volumespec.checked_path(name))
    except BadInput as wrong:
        verb = "create" if is_made(arguments) else "open"
        raise QmpError(f"Could not {verb} '{name}': {wrong}") from None
    if form in FORMATS:
        volume = FormatVolume(form, volume, _backing_layer(source, arguments) if is_made(arguments) else None)
    elif is_made(arguments) and arguments["sync"] == "none":
        raise QmpError(f"Backing file not supported for file format '{form}'")
    return Node(name, HostedVolume(source.volume.host, volume), {"driver": volume.driver})


def _backing_layer(source: Node, arguments: Mapping[str, Any]) -> Volume | None:
    """The layer below a new image."""
    match arguments["sync"]:
        case "top":
            image = volumespec.format_image(source.volume.volume)
            return image.backing if image else None
        case "none":
            return source.volume.volume
        case _:
            return None


def on_its_layer(node: Node, arguments: Mapping[str, Any], sight: Sight) -> Node:
    """The node of an existing target, with the layer from the image's header where the job needs the layer.

    Raises:
        QmpError: the header's layer cannot be the path of an image.
    """
    image = volumespec.format_image(node.volume.volume)
    if image is None or is_made(arguments) or arguments["sync"] == "full" or not sight.backing:
        return node
    place = os.path.normpath(os.path.join(os.path.dirname(volumespec.volume_label(image)), sight.backing))
    try:
        layer = volumespec.in_format(FileVolume(volumespec.checked_path(place)), sight.backing_format)
    except BadInput as wrong:
        raise QmpError(f"Could not open backing file: {wrong}") from None
    return replace(node, volume=replace(node.volume, volume=replace(image, backing=layer)))


def _drive_mode(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("mode", _MADE))
