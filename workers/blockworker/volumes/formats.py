"""Images in a format: qcow2 and vmdk, read and written by QEMU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final, Protocol

from blockjobs.model.errors import VolumeError
from blockjobs.model.volumespec import FormatVolume, bottom_volume, volume_label
from blockworker.host.roots import Roots
from blockworker.system.cage import Cage
from blockworker.system.cage.limits import PATIENCE
from blockworker.volumes.base import Extent, Identity, VolumeGone, expect_within, request_error
from blockworker.volumes.condition import identity_of_image
from blockworker.volumes.export import MOMENT, Export
from blockworker.volumes.layers import Layers, Open, opener_beneath_roots
from blockworker.volumes.nbd import NbdError, NbdServerGone
from blockworker.volumes.traces import Traces

_TRACED: Final = 1 << 20  # bytes of an image that share one mark


def open_format(
    volume: FormatVolume,
    open_: Open,
    *,
    top_only: bool = False,
    shared: bool = False,
    direct: bool = False,
    cage: Cage | None = None,
    answer: float = PATIENCE.answer,
) -> FormatSource:
    """Open an image for reading.

    ``shared``: also if QEMU writes to the image; ``direct``: read from its medium, not from the page cache; ``answer``:
    seconds for one answer. Raises JobFailed.
    """
    layers = Layers(open_, shared=shared, direct=direct)
    try:
        export = Export(layers.node(volume), layers.files, cage=cage, answer=answer)
        return FormatSource(layers, export, volume_label(volume), top_only=top_only)
    except BaseException:
        layers.close()
        raise


class FormatSource:
    """An image as a source. ``top_only``: bytes in layers below do not belong to the copy."""

    def __init__(self, layers: Layers, export: Export, label_: str, *, top_only: bool = False) -> None:
        self._layers, self._export, self._label = layers, export, label_
        self._top_only = top_only
        self.size = export.size

    @property
    def from_medium(self) -> bool:
        """Whether the page cache was out of the way when the image was opened."""
        return self._layers.from_medium

    def pread_into(self, view: memoryview, offset: int) -> None:
        try:
            self._export.read(view, offset)
        except NbdError as error:
            raise _server_error("read", self._label, offset, len(view), error) from None

    def extents(self, start: int, length: int) -> Iterator[Extent]:
        pending: Extent | None = None
        since = time.monotonic()
        try:
            for state in self._export.states(start, length):
                own = not self._top_only or state.depth == 1
                alike = pending is not None and (pending.data, pending.own) == (state.data and own, own)
                if pending is not None and alike and time.monotonic() - since < MOMENT:
                    pending = pending._replace(length=pending.length + state.length)
                    continue
                if pending is not None:
                    yield pending
                    since = time.monotonic()
                pending = Extent(state.start, state.length, state.data and own, own)
        except NbdError as error:
            raise _server_error("read", self._label, start, length, error) from None
        if pending is not None:
            yield pending

    def check_alive(self) -> None:
        """Raise VolumeGone if QEMU is gone."""
        try:
            self._export.check_alive()
        except NbdError as error:
            raise _server_error("read", self._label, 0, self.size, error) from None

    def identity(self) -> Identity:
        """The identity of the file and the layers below, with the size of the content, as a written file grows."""
        return identity_of_image(self._layers.files, self.size)

    def allocated(self) -> None:
        """None: a quick answer is not possible, as QEMU needs a second per GiB of some images."""

    def close(self) -> None:
        if self._layers.files:
            self._export.close()
            self._layers.close()


class Staging(Protocol):
    """The staging file in which an image is made."""

    @property
    def size(self) -> int:
        """Bytes of the future content; the image itself may be larger until it is finished."""

    @property
    def fresh(self) -> bool:
        """Whether nothing was written to the file since the image was laid out."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class FormatTarget:
    """An image in a staging file, which the target owns: the file's lock stays until QEMU is gone, too."""

    def __init__(self, volume: FormatVolume, staged: Staging, roots: Roots, *, compress: bool) -> None:
        """Open the target. Raises JobFailed; then ``staged`` is still the caller's."""
        self._label, self._staged = volume_label(volume), staged
        top, others = bottom_volume(volume), opener_beneath_roots(roots)
        self._layers = Layers(lambda file: os.dup(staged.fileno()) if file == top else others(file))
        try:
            node = self._layers.node(replace(volume, alone=True))
            if compress:
                node = {"driver": "compress", "file": node}
            self._export = Export(node, self._layers.files, writable=True, cage=roots.cage)
        except BaseException:
            self._layers.close()
            raise
        self.size = self._export.size
        # Unwritten parts of an image on a layer below read as that layer.
        self._traces = Traces(self.size, _TRACED, fresh=staged.fresh and volume.backing is None)
        self._zeros_are_data = volume.driver == "vmdk"

    def pwrite(self, view: memoryview, offset: int) -> None:
        expect_within(self._staged.size, self._label, offset, len(view))
        self._traces.mark(offset, len(view))
        self._do("write", lambda: self._export.write(view, offset), offset, len(view))

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._do("compare", lambda: self._export.read(view, offset), offset, len(view))

    def zero(self, offset: int, length: int) -> Iterable[tuple[int, int]]:
        """Make the range zeros if it reads as anything else. A vmdk needs data for zeros: such ranges are yielded."""
        expect_within(self._staged.size, self._label, offset, length)
        return self._zero(offset, length) if self._traces.may_hold(offset, length) else ()

    def _zero(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield after every answer of QEMU, which may need a second for the states of a GiB."""
        try:
            for state in self._export.states(offset, length):
                data = state.data and self._zeros_are_data
                if state.data and not data:
                    self._export.zero(state.start, state.length)
                yield state.start, state.start + (state.length if data else 0)
        except NbdError as error:
            raise _server_error("write", self._label, offset, length, error) from None

    def check_alive(self) -> None:
        """Raise VolumeGone if QEMU is gone."""
        self._do("write", self._export.check_alive, 0, self.size)

    def flush(self) -> None:
        self._do("flush", self._export.flush, 0, self.size)

    def close(self) -> None:
        if self._layers.files:
            self._export.close()
            self._layers.close()
        self._staged.close()

    def _do(self, operation: str, act: Callable[[], None], offset: int, length: int) -> None:
        try:
            act()
        except NbdError as error:
            raise _server_error(operation, self._label, offset, length, error) from None


def _server_error(operation: str, label_: str, offset: int, length: int, error: NbdError) -> VolumeError:
    """The VolumeError for a request that the server refused, or could not answer any more."""
    found = request_error(operation, label_, offset, length, error.errno, why=error.text)
    if not isinstance(error, NbdServerGone):
        return found
    return VolumeGone(found.errno, found.text, operation=operation, offset=offset, length=length)
