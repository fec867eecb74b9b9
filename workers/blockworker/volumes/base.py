"""The protocols between volumes and the copy loop: a source is read, a target is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from blockjobs.model.errors import VolumeError
from blockjobs.model.volumespec import VolumeKind
from blockworker.host.roots import Roots
from blockworker.volumes.condition import REPLACED, Identity

__all__ = ["REPLACED", "Extent", "Identity", "Source", "Target", "VolumeDriver", "expect_within", "request_error"]


class Extent(NamedTuple):
    """A piece of a volume of a single kind: ``data`` has to be read, a hole reads as zeros.

    ``own`` False: the bytes are in a layer below, and this copy ignores them.
    """

    start: int
    length: int
    data: bool
    own: bool = True


class Source(Protocol):
    """A volume to be read. Any thread may call any method."""

    @property
    def size(self) -> int: ...

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view``, or raise VolumeError (``operation="read"``)."""

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        """The range as extents in order, without gaps; one data extent if nothing is known."""

    def identity(self) -> Identity: ...

    def allocated(self) -> int | None:
        """Bytes allocated by the volume: the most that a copy will need. Called while others wait.

        None: a quick answer is not possible.
        """

    def close(self) -> None: ...


class MediumSource(Source, Protocol):
    """A source that is read from its medium, past the page cache, if possible."""

    @property
    def from_medium(self) -> bool:
        """Whether every byte read up to now came from the medium; otherwise some may have come from the cache."""


class Target(Protocol):
    """A volume to be written. Any thread may call any method."""

    @property
    def size(self) -> int: ...

    # Requests outside ``size`` are refused, see ``expect_within``: no bytes behind the end may be written.

    def pwrite(self, view: memoryview, offset: int) -> None:
        """Write all of ``view``, or raise VolumeError (``operation="write"``)."""

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with the written bytes, or raise VolumeError (``operation="compare"``)."""

    def zero(self, offset: int, length: int) -> Iterable[tuple[int, int]] | None:
        """Make the range read as zeros, as a hole if possible, without writing data.

        A slow target yields an empty part ``(here, here)`` now and then: the caller obeys orders at these points.
        Returns the parts ``(start, end)`` where zeros need data; the caller writes zeros there, at the speed allowed
        for the job. None: nothing is left to do.
        """

    def flush(self) -> None:
        """Make earlier writes durable. VolumeError (``operation="flush"``) is final."""

    def close(self) -> None: ...


@runtime_checkable
class Mortal(Protocol):
    """A source or a target in another process, which may be gone."""

    def check_alive(self) -> None:
        """Raise VolumeGone if the process is gone."""


class VolumeDriver(VolumeKind, Protocol):
    """A kind of volume from another package: an entry point of the group ``blockjobs.volumes``.

    The entry point has the name of the ``driver`` key, and is a class without arguments. A target of the kind is
    written in place: the class alone defines the meaning of commit and abort, and a failed job leaves its writes
    behind.
    """

    def open_source(self, keys: Mapping[str, Any], roots: Roots) -> Source:
        """Open a source. Raises JobFailed. ``roots`` opens every path, within the permissions of the host."""

    def open_target(self, keys: Mapping[str, Any], roots: Roots, size: int) -> Target:
        """Open a target. Raises JobFailed."""


class VolumeGone(VolumeError):
    """Nothing more can be read or written; not an error of a sector."""


def request_error(
    operation: str, label: str, offset: int, length: int, code: int | None, *, why: str = ""
) -> VolumeError:
    """The VolumeError for a failed request, with the same text for all volumes."""
    code = code or errno.EIO
    place = f" at offset {offset}" if operation != "flush" else ""
    text = f"{operation} of {label}{place}: {why or os.strerror(code)}"
    return VolumeError(code, text, operation=operation, offset=offset, length=length)


def expect_within(size: int, label: str, offset: int, length: int) -> None:
    """Raise VolumeError (``internal``: no policy tries again) for bytes outside a target."""
    if offset < 0 or length < 0 or offset + length > size:
        text = f"write of {label}: bytes {offset} to {offset + length} do not lie within its {size} bytes"
        raise VolumeError(errno.EINVAL, text, operation="internal", offset=offset, length=length)
