"""Named volumes: ``blockdev-add``, ``blockdev-del`` and ``query-named-block-nodes``.

A node is resolved at its addition: the children are kept by value, so that a job on the node needs no lookup, and later
changes of names cannot redirect the node.
"""

from __future__ import annotations

import errno
import json
import os
import re
from typing import Any, Final

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.volumespec import Volume
from blockjobs.qmp.errors import QmpError
from blockjobs.qmp.fleet import Backend
from blockjobs.registry.nodes import Node

Arguments = dict[str, Any]
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)
_LONGEST: Final = 31
_BASE: Final = ("discard", "cache", "read-only", "auto-read-only", "force-share", "detect-zeroes")
_HERE: Final = {"locking", "aio"}  # keys of QEMU's own I/O: accepted, without effect
_CHILDREN: Final = {
    "raw": ("file",), "blkdebug": ("image",), "qcow2": ("file", "backing"), "vmdk": ("file", "backing")
}  # fmt: skip
_EVENTS: Final = {"read_aio": "read", "write_aio": "write", "flush_to_disk": "flush"}  # an event -> the kind of its I/O


def add_node(fleet: Backend, arguments: Arguments) -> Any:
    name = arguments.get("node-name")
    if name is None:
        raise QmpError("'node-name' must be specified for the root node")
    check_name(fleet, name)
    children: list[str] = []
    keys, host = _flatten_definition(fleet, arguments, children)
    keys["host"] = host or fleet.only_host()
    try:
        volume = volumespec.parse_volume({**keys, "node-name": name})
    except BadInput as wrong:
        raise QmpError(str(wrong)) from None
    seen = fleet.look([("node", volume)])["node", volume]
    if seen.errno:
        label = volumespec.volume_label(volume.volume)
        raise QmpError(f"Could not open '{label}': {open_error_text(seen.errno, seen.text).removeprefix(f'{label}: ')}")
    read_only = arguments.get("read-only", False)
    fleet.registry.nodes.add(Node(name, volume, _shown_options(arguments), tuple(children), seen.size, read_only))
    return {}


def check_name(fleet: Backend, name: str) -> None:
    """Refuse a malformed name, and a name in use."""
    if not _NAME.fullmatch(name):
        raise QmpError(f"Invalid node-name: '{name}'")
    if any(node.name == name for node in fleet.registry.nodes.list()):
        raise QmpError(f"Duplicate nodes with node-name='{name}'")
    if len(name) > _LONGEST:
        raise QmpError("Node name too long")


def check_filter(fleet: Backend, arguments: Arguments) -> None:
    """Check the name of a filter like every name; a job inserts no filter."""
    if (name := arguments.get("filter-node-name")) is not None:
        check_name(fleet, name)


def delete_node(fleet: Backend, arguments: Arguments) -> Any:
    fleet.registry.nodes.remove(arguments["node-name"])
    return {}


def query_nodes(fleet: Backend, _: Arguments) -> list[dict[str, Any]]:
    return [_describe_node(node) for node in reversed(fleet.registry.nodes.list())]


def open_error_text(code: int, text: str) -> str:
    """The text for an open error: QEMU's where the errno is enough, else the host's text."""
    return os.strerror(code) if code in (errno.ENOENT, errno.EISDIR, errno.ELOOP) else text


def _flatten_definition(fleet: Backend, definition: Arguments, children: list[str]) -> tuple[Arguments, str]:
    """The volume of a definition, with references replaced by definitions; and the host, if named."""
    keys = {name: value for name, value in definition.items() if name not in _BASE and name not in _HERE}
    keys.pop("node-name", None)
    host = keys.pop("host", "")
    for name in _CHILDREN.get(keys["driver"], ()):
        if (inner := keys.get(name)) is not None:
            keys[name], below = _flatten_child(fleet, inner, children)
            if host and below and host != below:
                raise QmpError(f"Parameter 'host' does not accept value '{host}'")
            host = host or below
    match keys["driver"]:
        case "raw":
            for name in ("offset", "size"):
                if keys.get(name):
                    raise QmpError(f"Parameter '{name}' is unexpected")
            return keys["file"], host
        case "blkdebug":
            keys["inject-error"] = [_translate_rule(rule) for rule in keys.get("inject-error", [])]
    return keys, host


def _flatten_child(fleet: Backend, inner: Arguments | str, children: list[str]) -> tuple[Arguments, str]:
    if not isinstance(inner, str):
        return _flatten_definition(fleet, inner, children)
    node = fleet.node(inner)
    children.append(inner)
    keys = volumespec.to_dict(node.volume)
    keys.pop("node-name", None)
    return keys, keys.pop("host")


def _translate_rule(rule: Arguments) -> Arguments:
    keys = {name: value for name, value in rule.items() if name not in ("state", "immediately")}
    if keys["event"] in _EVENTS:
        keys.setdefault("iotype", _EVENTS[keys["event"]])
        keys["event"] = "none"
    return keys


def _shown_options(arguments: Arguments) -> Arguments:
    return {name: value for name, value in arguments.items() if name not in ("node-name", "read-only")}


def _describe_node(node: Node) -> dict[str, Any]:
    """QEMU's BlockDeviceInfo; settings that the fleet does not have show their defaults."""
    label = _node_file_name(node)
    driver = node.options["driver"]
    rates = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr", "write_threshold"), 0)
    return {
        "node-name": node.name, "drv": driver, "file": label, "ro": node.read_only, "encrypted": False,
        "detect_zeroes": node.options.get("detect-zeroes", "off"),
        "backing_file_depth": backing_depth(node.volume.volume), **rates,
        "cache": {"writeback": True, "direct": False, "no-flush": False, **node.options.get("cache", {})},
        "image": {"filename": label, "format": driver, "virtual-size": node.size},
        "host": node.volume.host,
    }  # fmt: skip


def backing_depth(volume: Volume) -> int:
    """Number of layers below an image."""
    image = volumespec.format_image(volume)
    return 1 + backing_depth(image.backing) if image and image.backing else 0


def _node_file_name(node: Node) -> str:
    volume = node.volume.volume
    if volume.driver == "null-co":
        return "null-co://"
    if volume.driver == "blkdebug":
        return "json:" + json.dumps(dict(node.options))
    return volumespec.volume_label(volume)
