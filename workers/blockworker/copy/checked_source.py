"""A published image as a source: every chunk is compared with its digest before any byte of it is handed out.

The source may be a range of the image. A hole of a whole chunk with a digest is read as well: the chunk was data once.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from blockjobs.model.errors import VolumeError
from blockworker.copy.digests import CHUNK, LENGTH, ZERO, chunk_digest
from blockworker.copy.proven import DIGEST, ProvenDigests
from blockworker.volumes.base import Extent, Identity, MediumSource
from blockworker.volumes.extents import RangeSet
from blockworker.volumes.file import FileSource

_BLOCK: Final = 1024  # chunks whose extents are examined together
_MOST_RANGES: Final = 1 << 16  # ranges noted one by one: an image with errors everywhere takes no memory for them
# kinds of chunks: zeros; as the image reports; to be read, whatever the image reports
_HOLE, _AS_IT_IS, _WHOLE = range(3)


class Tolerate(IntEnum):
    """The mismatches that are recorded instead of raised."""

    NOTHING = 0
    DIFFERENCES = 1
    ERRORS = 2  # and differences


class CheckedSource:
    """``size`` bytes of ``image`` from ``offset`` on; owns the image and the digests.

    ``whole``: the size in the manifest. ``digests`` None: no digests exist, and nothing is compared. ``on``: the
    mismatches that are recorded instead of raised.
    """

    def __init__(
        self,
        image: MediumSource,
        label: str,
        *,
        whole: int,
        digests: ProvenDigests | None,
        offset: int = 0,
        size: int,
        on: Tolerate = Tolerate.NOTHING,
    ) -> None:
        self.size = size
        self._image, self._label, self._digests = image, label, digests
        self._whole, self._offset, self._on = whole, offset, on
        self._lock = threading.Lock()
        self._differing, self._unreadable = RangeSet(), RangeSet()
        self._last = threading.local()  # the last chunk handed out in part: its reader will want the next part

    @property
    def from_medium(self) -> bool:
        """Whether every byte read up to now came from the medium; otherwise some may have come from the cache."""
        return self._image.from_medium

    @property
    def compares(self) -> bool:
        """Whether the image has digests."""
        return self._digests is not None

    @property
    def is_raw(self) -> bool:
        """Whether the image is a file that holds only its bytes."""
        return isinstance(self._image, FileSource)

    @property
    def differing(self) -> list[list[int]]:
        """The ranges of the image that were found to differ, chunk by chunk, neighbours merged."""
        return self._noted(self._differing)

    @property
    def unreadable(self) -> list[list[int]]:
        """The ranges of the image that could not be read, chunk by chunk, neighbours merged."""
        return self._noted(self._unreadable)

    def _noted(self, ranges: RangeSet) -> list[list[int]]:
        with self._lock:
            return [list(pair) for pair in ranges.to_tuple()]

    def note(self, start: int, end: int) -> None:
        """Note a differing range of the image: the image has too many bytes, or too few."""
        self._add(self._differing, start, end)

    def _add(self, ranges: RangeSet, start: int, end: int) -> None:
        """Note a range. After very many ranges, a new range is merged with the range before."""
        with self._lock:
            ranges.add(min(start, ranges.end) if ranges.count >= _MOST_RANGES else start, end)

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view``. Raises VolumeError: ``read``, or ``digest`` if a chunk differs."""
        here, end = self._offset + offset, self._offset + offset + len(view)
        start = here
        while here < end:
            first = here - here % CHUNK
            last = min(first + CHUNK, self._whole)
            part = view[here - start : min(last, end) - start]
            if len(part) == last - first:
                self._chunk(part, first)
            else:
                part[:] = self._kept(first, last)[here - first : here - first + len(part)]
            here += len(part)

    def check(self, start: int, end: int) -> None:
        """Compare a range of this source once more; raises as ``pread_into`` does."""
        buffer = memoryview(bytearray(CHUNK))
        for offset in range(start, end, CHUNK):
            self.pread_into(buffer[: min(CHUNK, end - offset)], offset)

    def _kept(self, first: int, last: int) -> memoryview:
        """A whole chunk, for a reader of a part."""
        if getattr(self._last, "first", -1) != first:
            self._last.first, self._last.view = -1, memoryview(bytearray(last - first))
            self._chunk(self._last.view, first)
            self._last.first = first
        view: memoryview = self._last.view
        return view

    def _chunk(self, view: memoryview, start: int) -> None:
        there = max(0, min(len(view), self._image.size - start))
        try:
            if there:
                self._image.pread_into(view[:there], start)
        except VolumeError:
            if self._on < Tolerate.ERRORS:
                raise
            self._add(self._unreadable, start, start + len(view))
            return
        view[there:] = bytes(len(view) - there)  # a truncated image
        if self._digests is None or self._same(view, start):
            return
        end = start + len(view)
        self.note(start, end)
        if self._on < Tolerate.DIFFERENCES:
            text = f"source {self._label}: bytes {start} to {end} differ from the digests of its manifest"
            raise VolumeError(errno.EBADMSG, text, operation=DIGEST, offset=start, length=len(view))

    def _same(self, view: memoryview, start: int) -> bool:
        expected = self._digests.get(start // CHUNK) if self._digests is not None else ZERO
        if expected == ZERO:
            return bytearray(len(view)) == view
        return chunk_digest(view) == expected

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        here, end = self._offset + start, self._offset + start + length
        for first, last, kind in self._runs(here // CHUNK, -(-end // CHUNK)):
            low, high = max(here, first * CHUNK), min(end, last * CHUNK)
            if kind == _AS_IT_IS:
                there = max(low, min(high, self._image.size))
                for extent in self._known(low, there - low):
                    yield extent._replace(start=extent.start - self._offset)
                low = there
            if low < high:
                yield Extent(low - self._offset, high - low, data=kind != _HOLE)

    def _runs(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Runs of chunks of the same kind; no run is longer than a block."""
        for block in range(first, last, _BLOCK):
            flags = self._flags(block, min(block + _BLOCK, last))
            begun = 0
            for index in range(1, len(flags) + 1):
                if index == len(flags) or flags[index] != flags[begun]:
                    yield block + begun, block + index, flags[begun]
                    begun = index

    def _flags(self, first: int, last: int) -> bytearray:
        """The kind of every chunk."""
        flags = bytearray(last - first)
        start, end = first * CHUNK, min(last * CHUNK, self._image.size)
        if start < end:
            for extent in self._known(start, end - start):
                if extent.data:
                    low, high = extent.start // CHUNK, -(-(extent.start + extent.length) // CHUNK)
                    flags[low - first : high - first] = bytes([_AS_IT_IS]) * (high - low)
        values = self._digests.get(first, last - first) if self._digests is not None else b""
        if values.count(0) < len(values):
            for index, flag in enumerate(flags):
                if not flag and values[index * LENGTH : (index + 1) * LENGTH] != ZERO:
                    flags[index] = _WHOLE
        return flags

    def _known(self, start: int, length: int) -> Iterator[Extent]:
        """The image's extents; if errors are recorded, an unknown rest counts as data: reading it finds the errors."""
        end = start + length
        try:
            for extent in self._image.extents(start, length):
                yield extent
                start = extent.start + extent.length
        except VolumeError:
            if self._on < Tolerate.ERRORS:
                raise
            yield Extent(start, end - start, data=True)

    def identity(self) -> Identity:
        return self._image.identity()

    def allocated(self) -> int | None:
        allocated = self._image.allocated()
        return None if allocated is None else min(self.size, allocated)

    def close(self) -> None:
        self._image.close()
        if self._digests is not None:
            self._digests.close()
