"""``block_resize``: checks in QEMU's order, then a request to the host."""

from __future__ import annotations

from typing import Any, Final

from blockjobs.model import volumespec
from blockjobs.model.errors import VolumeBusy
from blockjobs.model.volumespec import FileVolume
from blockjobs.qmp.backup import BUSY, Arguments
from blockjobs.qmp.errors import QmpError
from blockjobs.qmp.fleet import Backend
from blockjobs.qmp.nodes import open_error_text
from blockjobs.registry.nodes import NoSuchNode

_LARGEST: Final = (1 << 63) - (1 << 30)  # bytes: QEMU's BDRV_MAX_LENGTH


def block_resize(fleet: Backend, arguments: Arguments) -> Any:
    device, name, size = arguments.get("device", ""), arguments.get("node-name", ""), arguments["size"]
    nodes = fleet.registry.nodes
    try:
        node = nodes.get(name)  # a device belongs to a guest, and the fleet has no guests: only nodes are found
    except NoSuchNode:
        raise QmpError(f"Cannot find device='{device}' nor node-name='{name}'") from None
    if size < 0:
        raise QmpError("Parameter 'size' expects a >0 size")
    if writer := nodes.writer(node.volume):
        raise QmpError(BUSY.format(name, nodes.type_of(writer)))
    if nodes.readers(node.volume):
        raise QmpError(BUSY.format(name, "backup"))
    if size > _LARGEST:
        raise QmpError(f"offset({size}) exceeds maximum({_LARGEST})")
    if node.read_only:
        raise QmpError("Image is read-only")
    volume = node.volume.volume
    if volumespec.format_image(volume) or not isinstance(volumespec.bottom_volume(volume), FileVolume):
        raise QmpError("Image format driver does not support resize")
    try:
        answer = fleet.resize(node.volume, size)
    except VolumeBusy as busy:  # taken after the check
        raise QmpError(BUSY.format(name, nodes.type_of(busy.holder))) from None
    if answer.get("errno"):
        raise QmpError(f"Could not resize file: {open_error_text(answer['errno'], answer['text'])}")
    return {}
