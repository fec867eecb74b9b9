"""What every volume offers to the copy loop, as protocols: a source that is read, a target that is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from blockjobs.model.errors import VolumeError
from blockjobs.model.volumespec import VolumeKind
from blockworker.host.roots import Roots
from blockworker.volumes.condition import REPLACED, Identity

__all__ = ["REPLACED", "Extent", "Identity", "Source", "Target", "VolumeDriver", "expect_within", "trouble"]


class Extent(NamedTuple):
    """A piece of a volume that is known to be one thing: ``data`` has to be read, a hole reads as zeros.

    Not ``own``: it lies in a layer below, which this copy leaves alone.
    """

    start: int
    length: int
    data: bool
    own: bool = True


class Source(Protocol):
    """A volume that is read.  Any thread may call any method."""

    @property
    def size(self) -> int: ...

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view``, or raise VolumeError (``operation="read"``)."""

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        """The range as extents in order, without gaps; one data extent where nothing is known."""

    def identity(self) -> Identity: ...

    def allocated(self) -> int | None:
        """Bytes that the volume takes up where it lies: what a copy of it will need at most; asked while others wait.

        None: that cannot be told in a moment.
        """

    def close(self) -> None: ...


class MediumSource(Source, Protocol):
    """A source that is read from its medium, past the page cache, where that is possible."""

    @property
    def from_medium(self) -> bool:
        """Whether all that was read so far came from the medium; otherwise it may have come from the cache."""


class Target(Protocol):
    """A volume that is written.  Any thread may call any method."""

    @property
    def size(self) -> int: ...

    # What does not lie within ``size`` is refused, see ``expect_within``: what is behind it is nobody's to write.

    def pwrite(self, view: memoryview, offset: int) -> None:
        """Write all of ``view``, or raise VolumeError (``operation="write"``)."""

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with what was written, or raise VolumeError (``operation="compare"``)."""

    def zero(self, offset: int, length: int) -> Iterable[tuple[int, int]] | None:
        """Make the range read as zeros, as a hole where that is possible, without writing data.

        A target that needs long for it yields an empty part ``(here, here)`` now and then: the caller obeys there.
        Returns the parts ``(start, end)`` that only data can make zeros; the caller writes zeros there, at the speed
        that the job is allowed.  None: nothing is left to do.
        """

    def flush(self) -> None:
        """Make durable what was written before the call.  VolumeError (``operation="flush"``) is final."""

    def close(self) -> None: ...


@runtime_checkable
class Mortal(Protocol):
    """A source or a target that lives in another process, which may be gone."""

    def check_alive(self) -> None:
        """Raise VolumeGone where it is gone."""


class VolumeDriver(VolumeKind, Protocol):
    """A kind of volume outside our packages: an entry point of the group ``blockjobs.volumes``, named as the ``driver``
    key, that is a class without arguments.  A target of it is written in place: what commit and abort mean is its own
    affair, and a job that fails leaves what was written."""

    def open_source(self, keys: Mapping[str, Any], roots: Roots) -> Source:
        """Raises JobFailed.  Any path is opened through ``roots``, which knows what the host allows."""

    def open_target(self, keys: Mapping[str, Any], roots: Roots, size: int) -> Target:
        """Raises JobFailed."""


class VolumeGone(VolumeError):
    """Nothing more can be read or written: no error of a sector."""


def trouble(operation: str, label: str, offset: int, length: int, code: int | None, *, why: str = "") -> VolumeError:
    """The VolumeError for a failed request, with the one text that all volumes use."""
    code = code or errno.EIO
    place = f" at offset {offset}" if operation != "flush" else ""
    text = f"{operation} of {label}{place}: {why or os.strerror(code)}"
    return VolumeError(code, text, operation=operation, offset=offset, length=length)


def expect_within(size: int, label: str, offset: int, length: int) -> None:
    """Raise VolumeError (``internal``: no policy tries it again) for bytes that do not lie within a target."""
    if offset < 0 or length < 0 or offset + length > size:
        text = f"write of {label}: bytes {offset} to {offset + length} do not lie within its {size} bytes"
        raise VolumeError(errno.EINVAL, text, operation="internal", offset=offset, length=length)
