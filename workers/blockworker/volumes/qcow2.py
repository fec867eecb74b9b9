"""A check of a qcow2 that ``qemu-img check`` lacks: whether the file ends within the last cluster.

QEMU writes a new cluster as a whole, and reads bytes behind the end of the file as zeros. Therefore an image that has
lost its last bytes, for example by an interrupted copy, passes QEMU's check, or is reported to have leaked clusters;
and zeros are read instead of data.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

from blockworker.volumes.headers import Qcow2

_OFFSET = 0x00FFFFFFFFFFFE00  # bits of an entry: the position of a table or a data cluster
_IN_USE = 1 << 63  # the cluster has no other user: the topmost bit of an entry
_SUBCLUSTERS = 32  # subclusters of a cluster with a bitmap in the entry


def cut_data(fd: int, header: Qcow2, length: int, seconds: float) -> str:
    """The data behind the end of a file of ``length`` bytes, as a text to follow the image's name; "" for none.

    The tables are walked only if the file ends within a cluster. Raises TimeoutError, OSError.
    """
    last, deadline = length - length % header.cluster, time.monotonic() + seconds
    if last == length:
        return ""
    for at, entry in _cluster_entries(fd, header, last, deadline):
        if not entry:
            ends = last + header.cluster
            return f"is cut: the table of its data from byte {at} on ends at {ends}, the file at {length}"
        ends = last + min(_used_cluster_bytes(header, entry), header.size - at)
        if ends > length:
            return f"is cut: its data at byte {at} ends at {ends}, the file at {length}"
    return ""


def _cluster_entries(fd: int, header: Qcow2, cluster: int, deadline: float) -> Iterator[tuple[int, bytes]]:
    """Offsets in the image that use a cluster of the file, with their table entry; b"": the cluster is a table."""
    width = 16 if header.extended else 8
    found = [struct.pack(">Q", cluster | flag) for flag in (_IN_USE, 0)] if cluster else []
    each = header.cluster // width * header.cluster  # bytes of the image described by one table
    directory = os.pread(fd, 8 * min(header.l1_entries, -(-header.size // each)), header.l1_offset)
    for number in range(len(directory) // 8):
        if not (start := struct.unpack_from(">Q", directory, 8 * number)[0] & _OFFSET):
            continue
        if time.monotonic() > deadline:
            raise TimeoutError
        if start == cluster:
            yield number * each, b""
        table = os.pread(fd, header.cluster, start)
        for wanted in found:
            at = table.find(wanted)
            while at >= 0:
                if at % width == 0:
                    yield number * each + at // width * header.cluster, table[at : at + width]
                at = table.find(wanted, at + 1)


def _used_cluster_bytes(header: Qcow2, entry: bytes) -> int:
    """Bytes of a data cluster up to the last written byte."""
    if not header.extended:
        return header.cluster
    written = struct.unpack_from(">I", entry, 12)[0] if len(entry) == 16 else 0  # the first subcluster is its last bit
    return int(written.bit_length()) * (header.cluster // _SUBCLUSTERS)
