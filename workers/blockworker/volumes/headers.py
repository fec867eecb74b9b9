"""The headers of images, read before QEMU reads them: for messages that name the fault of an image.

The cage keeps an image from opening other files; this module only makes the messages. Facts: QEMU's
``docs/interop/qcow2.txt``, and ``block/vmdk.c`` with the "Virtual Disk Format 5.0" of VMware.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.volumespec import (
    SECTOR,
    DeviceVolume,
    FileVolume,
    FormatVolume,
    Volume,
    printable_text,
    volume_label,
)

MAGIC: Final = {"qcow2": b"QFI\xfb", "vmdk": b"KDMV"}
_QED: Final = b"QED\0"
_DATA_NAME: Final = 0x44415441  # the extension of a qcow2's header with the name of the data file
TEXT: Final = b"# Disk DescriptorFile"  # the first bytes of a vmdk whose data lies in other files
WHOLE_KINDS: Final = ("monolithicSparse", "streamOptimized")  # the kinds of vmdk in a single file
_DIRTY, _CORRUPT, _DATA_FILE, _EXTENDED = 1, 2, 4, 16  # bits of qcow2's incompatible features
_LONGEST: Final = 64 << 10  # bytes of a vmdk's descriptor that are read
_PARENT: Final = re.compile(rb'^\s*parentFileNameHint\s*=\s*"(.+?)"', re.MULTILINE)
_EXTENT: Final = re.compile(rb'^\s*(?:RW|RDONLY)\s+\d+\s+\w+\s+"(.+?)"', re.MULTILINE)
_KIND: Final = re.compile(rb'^\s*createType\s*=\s*"(.*?)"', re.MULTILINE)


@contextmanager
def reading_tables(name: str, seconds: float) -> Iterator[None]:
    """Turn a TimeoutError while reading tables into an error that names the image. Raises JobFailed."""
    try:
        yield
    except TimeoutError:
        text = f"{name} was not checked: reading its tables took longer than {seconds:.0f} s"
        raise JobFailed(errno.ETIMEDOUT, text) from None


@dataclass(frozen=True, slots=True)
class Qcow2:
    """The header of a qcow2; sizes and offsets in bytes."""

    version: int
    backing: str
    cluster: int
    size: int
    l1_entries: int
    l1_offset: int
    refcounts_offset: int
    refcounts_clusters: int
    features: int

    @classmethod
    def read(cls, fd: int) -> Qcow2:
        header = os.pread(fd, 104, 0).ljust(104, b"\0")
        version, at, length, bits, size = struct.unpack_from(">IQIIQ", header, 4)
        entries, l1, refcounts, clusters = struct.unpack_from(">IQQI", header, 36)
        features = struct.unpack_from(">Q", header, 72)[0] if version >= 3 else 0
        backing = os.pread(fd, min(length, 1023), at) if 0 < at < 1 << 62 else b""
        return cls(
            version,
            _printable_name(backing),
            1 << max(9, min(bits, 21)),
            size,
            entries,
            l1,
            refcounts,
            clusters,
            features,
        )

    @property
    def has_data_file(self) -> bool:
        return bool(self.features & _DATA_FILE)

    @property
    def extended(self) -> bool:
        """Whether table entries describe parts of a cluster, and are twice as long."""
        return bool(self.features & _EXTENDED)

    @property
    def dirty(self) -> bool:
        """Whether the cluster counts may be stale: a writer with lazy counts marks the image while it is open."""
        return bool(self.features & _DIRTY)

    def faults(self, length: int, *, dirty_is_fine: bool = False) -> list[str]:
        """Faults of an image of ``length`` bytes, as far as its header shows; texts to follow the image's name."""
        table = 8 * self.l1_entries
        entry = 16 if self.extended else 8
        needed = -(-self.size // (self.cluster * (self.cluster // entry)))
        refcounts = self.refcounts_offset + self.refcounts_clusters * self.cluster
        wrong = {
            "is marked as corrupt": bool(self.features & _CORRUPT),
            "was not closed by its last writer (dirty)": self.dirty and not dirty_is_fine,
            f"has a table of {self.l1_entries} entries, {needed} were expected": self.l1_entries < needed,
            f"is cut: its table ends at {self.l1_offset + table}, the file at {length}": self.l1_offset + table
            > length,
            f"is cut: its counts end at {refcounts}, the file at {length}": refcounts > length,
        }
        return [text for text, holds in wrong.items() if holds]


@dataclass(frozen=True, slots=True)
class Vmdk:
    """The header of a vmdk, with facts of its descriptor; sizes and offsets in bytes."""

    capacity: int
    grain: int
    table_entries: int
    directory: int
    unclean: bool
    kind: str
    parent: str

    @classmethod
    def read(cls, fd: int) -> Vmdk:
        header = os.pread(fd, SECTOR, 0).ljust(SECTOR, b"\0")
        capacity, grain, start, sectors, entries, _, directory = struct.unpack_from("<QQQQIQQ", header, 12)
        if directory == _AT_THE_END:
            footer = os.pread(fd, SECTOR, max(0, os.lseek(fd, 0, os.SEEK_END) - 2 * SECTOR)).ljust(SECTOR, b"\0")
            directory = struct.unpack_from("<Q", footer, 56)[0] if footer[:4] == MAGIC["vmdk"] else 0
        text = os.pread(fd, min(sectors * SECTOR, _LONGEST), start * SECTOR) if 0 < start < 1 << 50 else b""
        kind, parent = _KIND.search(text), _PARENT.search(text)
        return cls(
            capacity * SECTOR,
            grain * SECTOR,
            entries,
            directory * SECTOR,
            header[72] == 1,
            _printable_name(kind[1]) if kind else "",
            _printable_name(parent[1]) if parent else "",
        )


_AT_THE_END: Final = (1 << 64) - 1  # the directory's offset in a vmdk written as a stream


def _printable_name(text: bytes) -> str:
    """A name from an image, made printable for messages."""
    return printable_text(text.split(b"\0", 1)[0].decode(errors="replace"))


def expect_header(fd: int, volume: FormatVolume) -> None:
    """Check the header of an image before QEMU reads it.

    Raises:
        JobFailed: the file is no image of the format, or needs a file not named in its volume.
    """
    named, magic = volume_label(volume), os.pread(fd, len(TEXT), 0)
    if volume.driver == "vmdk" and magic == TEXT:
        raise _header_refusal(f"{named} is the description of a vmdk whose data lies in other files: {_ONE_FILE}")
    if magic[:4] != MAGIC[volume.driver]:
        raise _header_refusal(f"{named}: Image is not in {volume.driver} format")
    if volume.driver == "qcow2":
        header = Qcow2.read(fd)
        if header.has_data_file:
            raise _header_refusal(f"{named} keeps its data in another file: that is not followed")
        below = header.backing
    else:
        vmdk = Vmdk.read(fd)
        if vmdk.kind not in WHOLE_KINDS:
            raise _header_refusal(f"{named} is a vmdk of the kind '{vmdk.kind}': {_ONE_FILE}")
        if not vmdk.capacity:
            raise _header_refusal(f"{named} is a vmdk without data of its own (capacity 0): {_ONE_FILE}")
        below = vmdk.parent
    if below and (not volume.alone if volume.backing is None else not _in_file(volume.backing)):
        wanted = "its volume or null" if volume.backing is None else "a file, a device, or an image in one"
        raise _header_refusal(f"{named} lies on '{below}', which is not followed: 'backing' was expected, {wanted}")


_ONE_FILE: Final = f"one that is a single file was expected ({' or '.join(WHOLE_KINDS)})"


def _header_refusal(text: str) -> JobFailed:
    return JobFailed(errno.EINVAL, text)


def _in_file(volume: Volume) -> bool:
    """Whether options describe a layer completely; else QEMU adds the name in the header of the image above."""
    return isinstance(volume.file if isinstance(volume, FormatVolume) else volume, FileVolume | DeviceVolume)


def seems_formatted(fd: int) -> str:
    """The format that a file copied as raw bytes seems to have, as the end of "it begins as ..."; "" if not known.

    If some of the disk's data lies in other files, a copy of the bytes is no backup, and the text says so.
    """
    magic = os.pread(fd, len(TEXT), 0)
    if magic == TEXT:
        return f"the description of a vmdk whose data lies in other files: {_NO_BACKUP}"
    form = next((form for form, begin in MAGIC.items() if magic[:4] == begin), "")
    if form == "qcow2":
        header = Qcow2.read(fd)
        elsewhere = "another file" if header.has_data_file else f"'{header.backing}'" if header.backing else ""
    elif form:
        vmdk = Vmdk.read(fd)
        elsewhere = f"'{vmdk.parent}'" if vmdk.parent else "" if vmdk.kind in WHOLE_KINDS else "other files"
    else:
        return ""
    return f"a {form} image that lies on {elsewhere}: {_NO_BACKUP}" if elsewhere else f"a {form} image"


def _header_extension(fd: int, header: Qcow2, wanted: int) -> bytes:
    """The content of an extension of the header; b"" if the header has none."""
    start = struct.unpack(">I", os.pread(fd, 4, 100).ljust(4, b"\0"))[0] if header.version >= 3 else 72
    text = os.pread(fd, min(header.cluster, _LONGEST), 0)
    while start + 8 <= len(text):
        kind, length = struct.unpack_from(">II", text, start)
        if kind in (0, wanted):
            return text[start + 8 : start + 8 + length] if kind else b""
        start += 8 + -(-length // 8) * 8
    return b""


def _qed_layer(fd: int) -> bytes:
    """The name of the layer below an image of QEMU's earlier format (QED)."""
    header = os.pread(fd, 64, 0).ljust(64, b"\0")
    features, at, length = struct.unpack_from("<Q32xII", header, 16)
    return os.pread(fd, min(length, 1023), at) if features & 1 else b""


def named_files(fd: int) -> list[str]:
    """The files named in an image's header or description, as written in the image: its layers and data."""
    magic = os.pread(fd, len(TEXT), 0)
    if magic[:4] == MAGIC["qcow2"]:
        header = Qcow2.read(fd)
        return [name for name in (header.backing, _printable_name(_header_extension(fd, header, _DATA_NAME))) if name]
    if magic[:4] == _QED:
        return [name] if (name := _printable_name(_qed_layer(fd))) else []
    if magic[:4] == MAGIC["vmdk"]:
        return [name] if (name := Vmdk.read(fd).parent) else []
    text = os.pread(fd, _LONGEST, 0) if magic == TEXT else b""
    return [_printable_name(name) for name in (*_PARENT.findall(text), *_EXTENT.findall(text))]


_NO_BACKUP: Final = "WITHOUT THAT, A COPY OF ITS BYTES IS NO BACKUP"
