"""QEMU's ``blkdebug``: another volume whose requests fail according to rules."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from blockjobs.model.volumespec import SECTOR, InjectedError
from blockworker.volumes.base import Extent, Identity, Mortal, Source, Target, request_error


class Rules:
    """The ``inject-error`` list without used ``once`` rules; ``label``: the volume's name in errors."""

    def __init__(self, rules: tuple[InjectedError, ...], label: str) -> None:
        self._rules, self._label = list(rules), label
        self._lock = threading.Lock()

    def judge(self, iotype: str, offset: int, length: int) -> None:
        """Raise the VolumeError of the first rule that fits the request."""
        with self._lock:
            for rule in self._rules:
                if rule.iotype != iotype and not (rule.iotype is None and iotype != "flush"):
                    continue
                if rule.sector is not None and not offset - SECTOR < rule.sector * SECTOR < offset + length:
                    continue
                if rule.once:
                    self._rules.remove(rule)
                operation = "write" if iotype == "write-zeroes" else iotype
                raise request_error(operation, self._label, offset, length, rule.errno)

    def bad_sectors(self) -> list[int]:
        """The offsets at which reads fail, in order."""
        with self._lock:
            return sorted(
                rule.sector * SECTOR
                for rule in self._rules
                if rule.sector is not None and rule.iotype in (None, "read")
            )


class DebugSource:
    """A source with injected read errors. Its bad sectors are data, even if the image has a hole there."""

    def __init__(self, image: Source, rules: tuple[InjectedError, ...], label: str = "blkdebug") -> None:
        self._image = image
        self._rules = Rules(rules, label)

    @property
    def size(self) -> int:
        return self._image.size

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._rules.judge("read", offset, len(view))
        self._image.pread_into(view, offset)

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        bad = self._rules.bad_sectors()
        for extent in self._image.extents(start, length):
            if extent.data or not extent.own:
                yield extent
                continue
            here, end = extent.start, extent.start + extent.length
            for sector in bad:
                if here <= sector < end:
                    if sector > here:
                        yield Extent(here, sector - here, data=False)
                    here = min(sector + SECTOR, end)
                    yield Extent(sector, here - sector, data=True)
            if here < end:
                yield Extent(here, end - here, data=False)

    def identity(self) -> Identity:
        return self._image.identity()

    def allocated(self) -> int | None:
        return self._image.allocated()

    def check_alive(self) -> None:
        if isinstance(self._image, Mortal):
            self._image.check_alive()

    def close(self) -> None:
        self._image.close()


class DebugTarget:
    """A target with injected write, write-zeroes and flush errors."""

    def __init__(self, image: Target, rules: tuple[InjectedError, ...], label: str = "blkdebug") -> None:
        self._image = image
        self._rules = Rules(rules, label)

    @property
    def size(self) -> int:
        return self._image.size

    def pwrite(self, view: memoryview, offset: int) -> None:
        self._rules.judge("write", offset, len(view))
        self._image.pwrite(view, offset)

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._image.pread_into(view, offset)

    def zero(self, offset: int, length: int) -> Iterable[tuple[int, int]] | None:
        self._rules.judge("write-zeroes", offset, length)
        return self._image.zero(offset, length)

    def flush(self) -> None:
        self._rules.judge("flush", 0, self.size)
        self._image.flush()

    def check_alive(self) -> None:
        if isinstance(self._image, Mortal):
            self._image.check_alive()

    def close(self) -> None:
        self._image.close()
