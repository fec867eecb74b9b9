"""A volume as named by a job: a host, and QEMU's ``blockdev-add`` keys for one of the known drivers.

The format is never probed: an image is raw unless declared otherwise.  A backing file named inside an image is never
followed, so that data written by a guest can never choose the files to read (CVE-2024-32498).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import entry_points
from typing import Any, Final, Protocol

from blockjobs.model import ids
from blockjobs.model.errors import BadInput

SECTOR: Final = 512  # bytes; the unit of blkdebug's ``sector``
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)
IOTYPES: Final = ("read", "write", "write-zeroes", "flush")
FORMATS: Final = ("qcow2", "vmdk")  # beside raw, the absence of a format


@dataclass(frozen=True, slots=True)
class FileVolume:
    """A regular file on its host; ``filename`` is absolute and free of ``.``, ``..`` and control characters."""

    filename: str
    driver: str = "file"


@dataclass(frozen=True, slots=True)
class DeviceVolume:
    """A block device on a host, named by a path under ``/dev``."""

    filename: str
    driver: str = "host_device"


@dataclass(frozen=True, slots=True)
class NullVolume:
    """QEMU's ``null-co``: reads as zeros or garbage, discards writes.  ``size`` in bytes."""

    size: int = 1 << 30
    read_zeroes: bool = False
    latency_ns: int = 0
    driver: str = "null-co"


@dataclass(frozen=True, slots=True)
class InjectedError:
    """One rule of blkdebug: the requests to fail, and the error."""

    event: str = "none"
    iotype: str | None = None  # an element of IOTYPES; None: every kind but flush
    errno: int = 5
    sector: int | None = None  # of 512 bytes; None: anywhere
    once: bool = False


@dataclass(frozen=True, slots=True)
class DebugVolume:
    """QEMU's ``blkdebug``: a filter over ``image`` that injects errors."""

    image: Volume
    inject_error: tuple[InjectedError, ...] = ()
    driver: str = "blkdebug"


@dataclass(frozen=True, slots=True)
class FormatVolume:
    """An image in a format of ``FORMATS``: the file with the image, and the layer below.

    ``alone``: the user declared (``"backing": null``) that the image has no layer below, even if the image names a
    layer.
    """

    driver: str
    file: Volume
    backing: Volume | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class OtherVolume:
    """A volume of an external driver: the keys, and a name that is unique among the volumes of the host."""

    driver: str
    name: str
    keys: Mapping[str, Any]


Volume = FileVolume | DeviceVolume | NullVolume | DebugVolume | FormatVolume | OtherVolume


class VolumeKind(Protocol):
    """The interface of an external volume driver at submit time, an entry point of the group ``blockjobs.volumes``."""

    def parse(self, keys: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The volume's name on the host, and the keys, checked and plain, as stored.  Raises BadInput."""


OTHERS: Final = "blockjobs.volumes"


@cache
def external_driver(driver: str) -> Any:
    """The external volume driver installed under a name, or None.

    Reading the installed entry points costs as much as an import.
    """
    for point in entry_points(group=OTHERS, name=driver):
        return point.load()()
    return None


@dataclass(frozen=True, slots=True)
class HostedVolume:
    """A volume and its host; ``node`` is the registered node name, if any."""

    host: ids.Host
    volume: Volume
    node: str = ""

    @property
    def text(self) -> str:
        """``host:/path`` as users write a volume; used in locks and messages."""
        return f"{self.host}:{volume_label(self.volume)}"

    @property
    def lock(self) -> str:
        """The lock of the volume: the path, else the name of an external volume, else the node, else ""."""
        if volume_path(self.volume) is not None or isinstance(bottom_volume(self.volume), OtherVolume):
            return self.text
        return f"node:{self.node}" if self.node else ""


def volume_label(volume: Volume) -> str:
    """The path of the file or device at the bottom, or the driver's name for a volume without a path."""
    match volume:
        case FileVolume() | DeviceVolume():
            return volume.filename
        case NullVolume():
            return volume.driver
        case DebugVolume():
            return volume_label(volume.image)
        case FormatVolume():
            return volume_label(volume.file)
        case OtherVolume():
            return volume.name


def volume_path(volume: Volume) -> str | None:
    """The path at the bottom of the volume; None for a volume without a path."""
    return volume_label(volume) if isinstance(bottom_volume(volume), FileVolume | DeviceVolume) else None


def bottom_volume(volume: Volume) -> FileVolume | DeviceVolume | NullVolume | OtherVolume:
    """The volume below all filters and formats, with the bytes."""
    match volume:
        case DebugVolume(image=below) | FormatVolume(file=below):
            return bottom_volume(below)
        case _:
            return volume


def files_and_devices(volume: Volume) -> list[FileVolume | DeviceVolume]:
    """Every file and device below a volume: the top layer's first, then the lower layers'."""
    match volume:
        case FileVolume() | DeviceVolume():
            return [volume]
        case DebugVolume(image=below):
            return files_and_devices(below)
        case FormatVolume(file=file, backing=backing):
            return files_and_devices(file) + (files_and_devices(backing) if backing is not None else [])
        case _:
            return []


def relocate_volume(volume: Volume, path: str) -> Volume:
    """The volume with the file or device at its bottom replaced by ``path``, the new location of the data."""
    match volume:
        case DebugVolume(image=below):
            return replace(volume, image=relocate_volume(below, path))
        case FormatVolume(file=below):
            return replace(volume, file=relocate_volume(below, path))
        case _:
            return _volume_of_path(path)


def format_image(volume: Volume) -> FormatVolume | None:
    """The format image below the filters; None for a raw volume."""
    match volume:
        case FormatVolume():
            return volume
        case DebugVolume(image=below):
            return format_image(below)
        case _:
            return None


def in_format(volume: Volume, name: str, backing: Volume | None = None) -> Volume:
    """A file as an image of format ``name``; ``raw`` returns the volume unchanged.

    Raises:
        BadInput: the format is unknown, or the volume is no file.
    """
    if name == "raw":
        return volume
    if name not in FORMATS:
        raise BadInput(f"Unknown file format '{name}'")
    if not isinstance(volume, FileVolume):
        raise BadInput(f"{volume_label(volume)} cannot be made in format '{name}': a file was expected")
    return FormatVolume(name, volume, backing)


def read_as(volume: Volume, name: str) -> Volume:
    """A source as an image of format ``name``; ``raw`` returns the volume unchanged.

    Raises:
        BadInput: the format is unknown, or the volume already declares a format.
    """
    if name == "raw":
        return volume
    if name not in FORMATS:
        raise BadInput(f"Unknown file format '{name}'")
    if not isinstance(volume, FileVolume | DeviceVolume):
        raise BadInput(
            f"source {volume_label(volume)} cannot be read as '{name}': a file or a block device was expected"
        )
    return FormatVolume(name, volume)


# --- from what users write ----------------------------------------------------------------------------


def parse_volume(value: object, *, default_host: str | None = None) -> HostedVolume:
    """A volume from ``host:/path`` or from a dict of ``blockdev-add`` keys plus ``host``.

    Raises:
        BadInput: names the fault and the expected form.
    """
    if isinstance(value, str):
        host, colon, filename = value.partition(":")
        if value.startswith("/") and default_host is not None:
            host, colon, filename = default_host, ":", value
        if not colon or not host or host.startswith("/"):
            raise BadInput(f"volume '{printable_text(value)}': 'HOST:/PATH' was expected")
        return HostedVolume(ids.checked_host_name(host), _volume_of_path(checked_path(filename)))
    if isinstance(value, Mapping):
        keys = dict(value)
        host_name = keys.pop("host", default_host)
        if not isinstance(host_name, str):
            raise BadInput("volume: 'host' is missing: the name of the host that sees it was expected")
        node = _take_parameter(keys, "node-name", str, "")
        return HostedVolume(ids.checked_host_name(host_name), _from_keys(keys), node)
    raise BadInput(f"volume {value!r}: 'HOST:/PATH' or a mapping with 'driver' and 'host' was expected")


def _volume_of_path(path: str) -> FileVolume | DeviceVolume:
    """The volume that a path alone stands for."""
    return DeviceVolume(path) if is_device_path(path) else FileVolume(path)


def is_device_path(path: str) -> bool:
    """Whether a path is a device's: below ``/dev``, except in shared memory, where files lie."""
    return path.startswith("/dev/") and not path.startswith("/dev/shm/")  # noqa: S108 - only compared


def is_name(value: object) -> bool:
    """Whether a volume as written is the name of a node: a word with neither ``:`` nor ``/``."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


@lru_cache(maxsize=4096)  # a host asks for the same few paths over and over
def checked_path(text: str) -> str:
    """``text`` if it is an absolute, plain path.

    Raises:
        BadInput: relative, empty, with ``.`` or ``..`` or an empty part, a control character, or too long.
    """
    shown = printable_text(text)
    if not text.isprintable() and any(ord(ch) < 32 or ord(ch) == 127 for ch in text):
        raise BadInput(f"path '{shown}' has a control character: a plain absolute path was expected")
    if not text.startswith("/"):
        raise BadInput(f"path '{shown}' is not absolute: a path that begins with '/' was expected")
    parts = text[1:].split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise BadInput(f"path '{shown}' has an empty part, '.' or '..': a plain absolute path was expected")
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"path '{shown}' is not valid UTF-8: a path in UTF-8 was expected") from None
    if len(encoded) > 4095 or any(len(part.encode("utf-8")) > 255 for part in parts):
        raise BadInput(f"path '{shown[:60]}...' is too long: at most 255 bytes a part and 4095 in all were expected")
    return text


def printable_text(text: str) -> str:
    """``text`` with escape sequences for characters that would break a line or a terminal."""
    if text.isprintable():
        return text
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text)


def _from_keys(keys: dict[str, Any]) -> Volume:
    driver = keys.pop("driver", None)
    match driver:
        case "file":
            volume: Volume = FileVolume(checked_path(_take_parameter(keys, "filename", str)))
        case "host_device":
            volume = DeviceVolume(checked_path(_take_parameter(keys, "filename", str)))
        case "null-co":
            volume = NullVolume(
                size=_take_parameter(keys, "size", int, 1 << 30),
                read_zeroes=_take_parameter(keys, "read-zeroes", bool, default=False),
                latency_ns=_take_parameter(keys, "latency-ns", int, 0),
            )
            if volume.size < 0 or volume.latency_ns < 0:
                raise BadInput("null-co: 'size' and 'latency-ns' expect a non-negative value")
        case "blkdebug":
            rules = _take_parameter(keys, "inject-error", list, [])
            image = _take_parameter(keys, "image", dict)
            volume = DebugVolume(_from_keys(dict(image)), tuple(_parse_injected_error(rule) for rule in rules))
        case str() if driver in FORMATS:
            volume = _parse_format_volume(driver, keys)
        case None:
            raise BadInput("Parameter 'driver' is missing")
        case _:
            return _parse_other_volume(driver, keys)
    if keys:
        raise BadInput(f"Parameter '{next(iter(keys))}' is unexpected")
    return volume


def _parse_format_volume(driver: str, keys: dict[str, Any]) -> FormatVolume:
    file = _from_keys(dict(_take_parameter(keys, "file", dict)))
    if format_image(file) or not isinstance(bottom_volume(file), FileVolume | DeviceVolume):
        raise BadInput(f"Parameter 'file' of driver '{driver}' expects a file or a host_device")
    alone = keys.get("backing", _MISSING) is None
    below = None if alone else _take_parameter(keys, "backing", dict, None)
    keys.pop("backing", None)
    backing = None if below is None else _from_keys(dict(below))
    if isinstance(backing and bottom_volume(backing), OtherVolume):
        raise BadInput(f"Parameter 'backing' of driver '{driver}' expects a file, a host_device or another image")
    return FormatVolume(driver, file, backing, alone)


def _parse_other_volume(driver: object, keys: dict[str, Any]) -> Volume:
    match keys:
        case {"other": [str(name), Mapping() as stored]} if isinstance(driver, str) and len(keys) == 1:
            return OtherVolume(driver, name, dict(stored))  # checked at submit
    kind: VolumeKind | None = external_driver(driver) if isinstance(driver, str) else None
    if kind is None:
        raise BadInput(f"Parameter 'driver' does not accept value '{driver}'")
    name, plain = kind.parse(keys)
    return OtherVolume(str(driver), name, plain)


def _parse_injected_error(value: object) -> InjectedError:
    if not isinstance(value, Mapping):
        raise BadInput("Invalid parameter type for 'inject-error', expected: array of objects")
    keys = dict(value)
    event = _take_parameter(keys, "event", str, "none")
    if event != "none":
        raise BadInput(f"Parameter 'event' does not accept value '{event}'")
    iotype = _take_parameter(keys, "iotype", str, None)
    if iotype is not None and iotype not in IOTYPES:
        raise BadInput(f"Parameter 'iotype' does not accept value '{iotype}'")
    sector = _take_parameter(keys, "sector", int, -1)
    rule = InjectedError(
        event,
        iotype,
        _take_parameter(keys, "errno", int, 5),
        None if sector < 0 else sector,
        _take_parameter(keys, "once", bool, default=False),
    )
    if not 1 <= rule.errno <= 4095:  # MAX_ERRNO of the kernel
        raise BadInput("Parameter 'errno' expects the number of an error, such as 5 (EIO) or 28 (ENOSPC)")
    if keys:
        raise BadInput(f"Parameter '{next(iter(keys))}' is unexpected")
    return rule


_QAPI: Final = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}
_MISSING: Final = object()


def _take_parameter(keys: dict[str, Any], name: str, kind: type[Any], default: Any = _MISSING) -> Any:
    """Pop ``name``, of exactly ``kind`` (a boolean is no integer); errors carry QEMU's QAPI texts."""
    value = keys.pop(name, default)
    if value is _MISSING:
        raise BadInput(f"Parameter '{name}' is missing")
    if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise BadInput(f"Invalid parameter type for '{name}', expected: {_QAPI[kind]}")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise BadInput(f"Parameter '{name}' expects a 64-bit integer")
    return value


# --- to and from what is stored -----------------------------------------------------------------------


def to_dict(hosted: HostedVolume) -> dict[str, Any]:
    """The dict form, with QEMU's key names; ``parse_volume`` is the inverse."""
    named = {"node-name": hosted.node} if hosted.node else {}
    return {"host": str(hosted.host), **named, **_to_keys(hosted.volume)}


def _to_keys(volume: Volume) -> dict[str, Any]:
    match volume:
        case FileVolume() | DeviceVolume():
            return {"driver": volume.driver, "filename": volume.filename}
        case NullVolume():
            return {
                "driver": volume.driver,
                "size": volume.size,
                "read-zeroes": volume.read_zeroes,
                "latency-ns": volume.latency_ns,
            }
        case DebugVolume():
            return {
                "driver": volume.driver,
                "image": _to_keys(volume.image),
                "inject-error": [rule_keys(rule) for rule in volume.inject_error],
            }
        case FormatVolume(driver, file, backing, alone):
            below = {} if backing is None and not alone else {"backing": backing and _to_keys(backing)}
            return {"driver": driver, "file": _to_keys(file), **below}
        case OtherVolume():
            return {"driver": volume.driver, "other": [volume.name, dict(volume.keys)]}


def rule_keys(rule: InjectedError) -> dict[str, Any]:
    keys: dict[str, Any] = {"event": rule.event, "errno": rule.errno, "once": rule.once}
    if rule.iotype is not None:
        keys["iotype"] = rule.iotype
    if rule.sector is not None:
        keys["sector"] = rule.sector
    return keys
