"""The configuration of a host (``host.toml``), the host's identity and facts."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import psutil
from blake3 import blake3

import blockjobs
from blockjobs.model import ids, volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.ids import Host
from blockjobs.process.clock import read_boot_id
from blockworker.host import ownership

# Seconds. Waiters for a frozen disk give up after 10 (Windows' shadow copies) to 30 (a disk's own timeout).
THAW_AFTER: Final = 10
LARGEST: Final = 1 << 20  # bytes of a host.toml
HANGS_AFTER: Final = 5.0  # seconds that a look at one root may take
CONFIG: Final = "/etc/blockjobs/host.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """The permissions given by the owner of a host: readable and writable paths, and copies at once."""

    name: Host
    slots: int = 2
    read_roots: tuple[str, ...]
    write_roots: tuple[str, ...]
    allow_overwrite: bool = False
    allow_in_place: bool = False  # devices may be written
    # Paths under /dev, ``*`` for any part of a name; links are resolved at each use.
    devices: tuple[str, ...] = ()
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # commands that jobs may call, by name
    thaw_after: int = THAW_AFTER  # seconds that a source stands still for a cut at most
    uncaged_formats: bool = False  # QEMU's tools may run without the cage where the kernel has none
    state: str = ""  # the directory of the host's records; "": beneath the first write root
    must_be_mounted: bool = False  # every write root has to be a mount point
    restore_roots: tuple[str, ...] = ()  # only jobs of type ``restore`` write below these, besides the write roots
    backup_owner: str = ""  # owner of published backups: USER, USER:GROUP or :GROUP; "": the worker's user and group
    backup_mode: int = 0o600  # permission bits of published backups; directories made by jobs follow
    path: str = field(default=CONFIG, compare=False)  # the file of this configuration, for messages

    @property
    def target_roots(self) -> tuple[str, ...]:
        """The directories below which targets of any job lie: write roots, and restore roots outside them."""
        return _target_roots(self.write_roots, self.restore_roots)

    @property
    def backup_ids(self) -> tuple[int, int]:
        """User and group id of published backups; -1: keep the worker's own id. Raises BadInput."""
        return ownership.ids_of(self.backup_owner)

    @property
    def directory_mode(self) -> int:
        """Permission bits of directories made by jobs: a reader of a backup may search the directory of the backup."""
        return ownership.mode_of_directories(self.backup_mode)


@lru_cache  # asked for at every path that is opened
def _target_roots(write_roots: tuple[str, ...], restore_roots: tuple[str, ...]) -> tuple[str, ...]:
    inside = [root.rstrip("/") + "/" for root in write_roots]
    return write_roots + tuple(
        root for root in restore_roots if not any(f"{root}/".startswith(each) for each in inside)
    )  # fmt: skip


_KEYS: Final[dict[str, tuple[type, str]]] = {
    "name":            (str,  "a host name"),
    "slots":           (int,  "an integer from 1 to 1000"),
    "read-roots":      (list, "a list of absolute directories"),
    "write-roots":     (list, "a list of absolute directories"),
    "allow-overwrite": (bool, "true or false"),
    "allow-in-place":  (bool, "true or false"),
    "devices":         (list, "a list of paths under /dev, * for any part of a name"),
    "thaw-after":      (int,  "an integer from 1 to 600, of seconds"),
    "uncaged-formats": (bool, "true or false"),
    "state":           (str,  "an absolute directory, which need not exist"),
    "must-be-mounted": (bool, "true or false"),
    "restore-roots":   (list, "a list of absolute directories"),
    "backup-owner":    (str,  ownership.OWNER),
    "backup-mode":     (str,  ownership.MODE),
    "commands":        (dict, "a table of NAME = [program, argument, ...], the program an absolute path"),
}  # fmt: skip
STATE: Final = "/var/lib/blockjobs"  # parent of the default state directories, used if host.toml names no directory
_REQUIRED: Final = ("name", "read-roots", "write-roots")


def load_host_config(path: str | os.PathLike[str]) -> HostConfig:
    """Read ``host.toml``.

    Raises:
        BadInput: names the file, the key and the expected value.
    """
    try:
        with open(path, "rb") as file:
            if len(text := file.read(LARGEST + 1)) > LARGEST:
                raise BadInput(f"{os.fspath(path)}: it is larger than {LARGEST >> 20} MiB: a host.toml was expected")
        keys = tomllib.loads(text.decode())
    except OSError as error:
        raise BadInput(f"{os.fspath(path)}: {error.strerror}: a readable host.toml was expected") from None
    except RecursionError:
        raise BadInput(f"{os.fspath(path)}: it is nested too deeply: TOML was expected") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{os.fspath(path)}: {error}: TOML was expected") from None
    try:
        return _config_of_keys(keys, os.fspath(path))
    except BadInput as error:
        raise BadInput(f"{os.fspath(path)}: {error}") from None


def _config_of_keys(keys: Mapping[str, Any], path: str) -> HostConfig:
    for key, value in keys.items():
        if key not in _KEYS:
            raise BadInput(f"{key}: unknown key: one of {', '.join(_KEYS)} was expected")
        kind, expected = _KEYS[key]
        if type(value) is not kind:  # exactly: a boolean is no integer
            raise BadInput(f"{key}: {value!r}: {expected} was expected")
    for key in _REQUIRED:
        if key not in keys:
            raise BadInput(f"{key}: missing: {_KEYS[key][1]} was expected")
    slots = keys.get("slots", 2)
    if not 1 <= slots <= 1000:
        raise BadInput(f"slots: {slots}: {_KEYS['slots'][1]} was expected")
    thaw_after = keys.get("thaw-after", THAW_AFTER)
    if not 1 <= thaw_after <= 600:
        raise BadInput(f"thaw-after: {thaw_after}: {_KEYS['thaw-after'][1]} was expected")
    return HostConfig(
        name=ids.checked_host_name(keys["name"]),
        slots=slots,
        read_roots=_checked_directories("read-roots", keys["read-roots"]),
        write_roots=_checked_directories("write-roots", keys["write-roots"]),
        allow_overwrite=keys.get("allow-overwrite", False),
        allow_in_place=keys.get("allow-in-place", False),
        devices=_device_paths(keys.get("devices", [])),
        commands=_checked_commands(keys.get("commands", {})),
        thaw_after=thaw_after,
        uncaged_formats=keys.get("uncaged-formats", False),
        state=_checked_state_path(keys.get("state", default_state(ids.checked_host_name(keys["name"])))),
        must_be_mounted=keys.get("must-be-mounted", False),
        restore_roots=_checked_directories("restore-roots", keys.get("restore-roots", [])),
        backup_owner=ownership.parse_owner(keys.get("backup-owner", "")),
        backup_mode=ownership.parse_mode(keys.get("backup-mode", "0600")),
        path=path,
    )


def default_state(name: Host) -> str:
    """The state directory of a host whose host.toml names none."""
    return f"{STATE}/{name}"


def _checked_state_path(path: str) -> str:
    return path and _checked_path("state", path.removesuffix("/"))


def _checked_directories(key: str, values: list[object]) -> tuple[str, ...]:
    roots = []
    for value in values:
        if not isinstance(value, str):
            raise BadInput(f"{key}: {value!r}: {_KEYS[key][1]} was expected")
        root = value if value == "/" else _checked_path(key, value.removesuffix("/"))
        if not _is_directory(root):
            raise BadInput(f"{key}: '{root}' is not an existing directory")
        roots.append(root)
    return tuple(roots)


def _is_directory(path: str) -> bool:
    """Whether a path is a directory. A hanging path counts as a directory: a worker has to start despite the hang."""
    test = shutil.which("test")
    if test is None:
        return os.path.isdir(path)
    child = subprocess.Popen([test, "-d", path], stdin=subprocess.DEVNULL)
    try:
        return child.wait(HANGS_AFTER) == 0
    except subprocess.TimeoutExpired:
        child.kill()  # the child ends when the file system answers
        return True


def _device_paths(values: list[object]) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str) or not _checked_path("devices", value).startswith("/dev/"):
            raise BadInput(f"devices: {value!r}: {_KEYS['devices'][1]} was expected")
    return tuple(str(value) for value in values)


def _checked_commands(values: dict[str, object]) -> dict[str, tuple[str, ...]]:
    commands = {}
    for name, argv in values.items():
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            raise BadInput(f"commands.{name}: {argv!r}: {_KEYS['commands'][1]} was expected")
        commands[name] = (_checked_path(f"commands.{name}", argv[0]), *argv[1:])
    return commands


def _checked_path(key: str, path: str) -> str:
    try:
        return volumespec.checked_path(path)
    except BadInput as error:
        raise BadInput(f"{key}: {error}") from None


def host_config_text(config: HostConfig) -> str:
    """The text of a ``host.toml`` that ``load_host_config`` reads back as ``config``."""
    values: dict[str, object] = {
        "name": str(config.name),
        "slots": config.slots,
        "read-roots": list(config.read_roots),
        "write-roots": list(config.write_roots),
        "allow-overwrite": config.allow_overwrite,
        "allow-in-place": config.allow_in_place,
        "devices": list(config.devices),
        "thaw-after": config.thaw_after,
        "uncaged-formats": config.uncaged_formats,
        "state": config.state,
        "must-be-mounted": config.must_be_mounted,
        "restore-roots": list(config.restore_roots),
        "backup-owner": config.backup_owner,
        "backup-mode": f"{config.backup_mode:04o}",
    }
    # JSON's strings, integers, booleans and lists of strings are TOML's, but for DEL, which no path here contains.
    text = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    commands = "".join(f"{json.dumps(name)} = {json.dumps(argv)}\n" for name, argv in config.commands.items())
    return text + (f"\n[commands]\n{commands}" if commands else "")


def machine_id() -> str:
    """The id of this installation, hashed (the id itself is confidential by its man page): 16 hexadecimal digits."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        text = ""
    return blake3(f"blockjobs:{text or read_boot_id() or platform.node()}".encode()).hexdigest()[:16]


def machine_facts() -> dict[str, str | int]:
    """Facts of the machine, shown by ``blockjobs hosts``."""
    return {
        "cpus": psutil.cpu_count() or 1,
        "memory": psutil.virtual_memory().total,
        "boot-id": read_boot_id(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "version": blockjobs.__version__,
    }
