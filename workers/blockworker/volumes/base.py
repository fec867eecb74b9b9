"""What every volume offers to the copy loop, as protocols: a source that is read, a target that is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from blockjobs.model.errors import VolumeError
from blockjobs.model.volumespec import VolumeKind
from blockworker.roots import Roots

REPLACED: Final = ("another file", "size")  # what may differ between two identities beyond having been written to


class Extent(NamedTuple):
    """A piece of a volume that is known to be one thing: ``data`` has to be read, a hole reads as zeros.

    Not ``own``: it lies in a layer below, which this copy leaves alone.
    """

    start: int
    length: int
    data: bool
    own: bool = True


@dataclass(frozen=True, slots=True)
class Identity:
    """Which source was opened, and in what condition; ``kind`` is ``file``, ``device`` or ``none``."""

    kind: str
    dev: int = 0
    ino: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0

    def changed(self, other: Identity) -> str | None:
        """What differs in ``other``: ``""`` for nothing, None where it cannot be known (only files tell).

        ``dev`` is not compared: it may be another number after a reboot.
        """
        if self.kind != "file" or other.kind != "file":
            return None
        for name in ("ino", "size", "mtime_ns", "ctime_ns"):
            if getattr(self, name) != getattr(other, name):
                return {"ino": "another file", "mtime_ns": "mtime", "ctime_ns": "ctime"}.get(name, name)
        return ""

    def to_list(self) -> list[Any]:
        return [self.kind, self.dev, self.ino, self.size, self.mtime_ns, self.ctime_ns]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Identity:
        kind, *numbers = values
        return cls(str(kind), *map(int, numbers))


class Source(Protocol):
    """A volume that is read.  Any thread may call any method."""

    @property
    def size(self) -> int: ...

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view``, or raise VolumeError (``operation="read"``)."""

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        """The range as extents in order, without gaps; one data extent where nothing is known."""

    def identity(self) -> Identity: ...

    def allocated(self) -> int:
        """Bytes that the volume takes up where it lies: what a copy of it will need at most."""

    def close(self) -> None: ...


class Target(Protocol):
    """A volume that is written.  Any thread may call any method."""

    @property
    def size(self) -> int: ...

    def pwrite(self, view: memoryview, offset: int) -> None:
        """Write all of ``view``, or raise VolumeError (``operation="write"``)."""

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with what was written, or raise VolumeError (``operation="compare"``)."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, as a hole where that is possible."""

    def flush(self) -> None:
        """Make durable what was written before the call.  VolumeError (``operation="flush"``) is final."""

    def close(self) -> None: ...


class VolumeDriver(VolumeKind, Protocol):
    """A kind of volume outside our packages: an entry point of the group ``blockjobs.volumes``, named as the ``driver``
    key, that is a class without arguments.  A target of it is written in place: what commit and abort mean is its own
    affair, and a job that fails leaves what was written."""

    def open_source(self, keys: Mapping[str, Any], roots: Roots) -> Source:
        """Raises JobFailed.  Any path is opened through ``roots``, which knows what the host allows."""

    def open_target(self, keys: Mapping[str, Any], roots: Roots, size: int) -> Target:
        """Raises JobFailed."""


def trouble(operation: str, label: str, offset: int, length: int, code: int | None, *, why: str = "") -> VolumeError:
    """The VolumeError for a failed request, with the one text that all volumes use."""
    code = code or errno.EIO
    place = f" at offset {offset}" if operation != "flush" else ""
    text = f"{operation} of {label}{place}: {why or os.strerror(code)}"
    return VolumeError(code, text, operation=operation, offset=offset, length=length)
