"""The local hosts of ``up``, and the ``host.toml`` of each host."""

from __future__ import annotations

import json
import re
import socket
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blockjobs.model import ids
from blockjobs.model.errors import BadInput
from blockjobs.model.ids import Host
from blockjobs.settings import absolute_path

LARGEST: Final = 1 << 20  # bytes of a host.toml


@dataclass(frozen=True, slots=True)
class LocalHost:
    name: Host
    root: Path


def local_hosts(named: Sequence[str], root: Path) -> list[LocalHost]:
    """The hosts of the command line, with existing directories as roots.

    Raises:
        BadInput: a bad name, a name given twice, a root that is no directory.
    """
    hosts: dict[Host, LocalHost] = {}
    for text in named or (machine_name(),):
        name, _, own = text.partition("=")
        host = LocalHost(ids.checked_host_name(name), absolute_path(Path(own or root), f"the root of host '{name}',"))
        if host.name in hosts:
            raise BadInput(f"--host {name} is given twice; a name of its own was expected for each host")
        if not host.root.is_dir():
            raise BadInput(f"root {host.root} of host '{name}' is not there; an existing directory was expected")
        # Roots are opened without following symlinks; symlinks in front of the root are the caller's own.
        hosts[host.name] = LocalHost(host.name, host.root.resolve())
    return list(hosts.values())


def machine_name() -> str:
    """This machine's name as a host name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname().partition(".")[0]).strip("._-") or "localhost"


def write_host(
    directory: Path,
    host: LocalHost,
    slots: int,
    *,
    allow_overwrite: bool = False,
    allow_in_place: bool = False,
    devices: Sequence[str] = (),
) -> Path:
    """Write the host's ``host.toml``; keys not decided by ``up`` are kept from an existing file."""
    path = directory / "hosts" / f"{host.name}.toml"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    kept: dict[str, Any] = {"allow-overwrite": False, "allow-in-place": False, "devices": []}
    with suppress(FileNotFoundError):
        kept |= _read_host_keys(path)
    if allow_overwrite:
        kept["allow-overwrite"] = True
    if allow_in_place:
        kept["allow-in-place"] = True
    kept["devices"] = list(dict.fromkeys([*kept["devices"], *devices]))
    root = [str(host.root)]
    keys = kept | {
        "name": host.name, "slots": slots, "read-roots": root, "write-roots": root,
        "state": str(directory / "state" / host.name),
    }  # fmt: skip
    lines = [f"{key} = {_toml_text(value)}\n" for key, value in sorted(keys.items())]
    path.write_text(
        "# `blockjobs up` sets name, slots, state and the roots at every start.\n" + "".join(lines), encoding="utf-8"
    )
    return path


def _read_host_keys(path: Path) -> dict[str, Any]:
    """The keys of an existing ``host.toml``, from an earlier ``up`` or from its owner.

    Raises:
        BadInput: the file is no TOML, too large, or holds values that no host has.
    """
    again = "(remove the file to have it written again)"
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise BadInput(f"{path}: the file is larger than {LARGEST} bytes; the keys of a host were expected {again}")
    try:
        keys = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as wrong:
        what = "nested too deeply" if isinstance(wrong, RecursionError) else str(wrong)
        raise BadInput(f"{path}: {what}; TOML was expected {again}") from None
    for key, value in keys.items():
        if not _is_toml_value(value) or (key == "devices" and not isinstance(value, list)):
            raise BadInput(f"{path}: {key}: a value as `blockjobs init host` shows it was expected {again}")
    return keys


def _is_toml_value(value: object) -> bool:
    """Whether ``_toml_text`` can write a value, of the kinds in a ``host.toml``."""
    match value:
        case dict():
            return all(map(_is_toml_value, value.values()))
        case list():
            return all(map(_is_toml_value, value))
    return isinstance(value, str | int)


def _toml_text(value: object) -> str:
    """A value in TOML: texts, numbers, booleans and lists are written as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_text(key)} = {_toml_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
