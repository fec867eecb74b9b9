"""A target that is named by its file: what ``drive-backup`` and ``drive-mirror`` make of filename, format and mode.

The file is on the source's host.  ``existing``: it is there, and is replaced at the commit; ``absolute-paths``: it is
made, whatever was there before.  The format is never probed: raw unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.volumespec import FileVolume, HostedVolume, Volume
from blockjobs.qmp.errors import QmpError
from blockjobs.store.nodes import Node

FORMATS: Final[Mapping[str, Callable[[str], Volume]]] = {  # name of a format -> the volume of a checked path
    "raw":  FileVolume,
    "file": FileVolume,
}  # fmt: skip
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
    if form not in FORMATS:
        raise QmpError(_UNKNOWN[_mode(arguments)].format(form))
    try:
        volume = FORMATS[form](volumespec.checked_path(name))
    except BadInput as wrong:
        verb = "create" if is_made(arguments) else "open"
        raise QmpError(f"Could not {verb} '{name}': {wrong}") from None
    return Node(name, HostedVolume(source.volume.host, volume), {"driver": volume.driver})


def _mode(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("mode", _MADE))
