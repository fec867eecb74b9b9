"""What ``qemu-img check`` does not tell of a qcow2: that its file ends within its last cluster.

QEMU writes a cluster as a whole when it takes one, and reads as zeros what is behind the end of the file.  So an image
that has lost its last bytes, as by a copy that was ended, is in order for its check, or has clusters that nobody uses;
and zeros are read for data.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

from blockworker.volumes.headers import Qcow2

_OFFSET = 0x00FFFFFFFFFFFE00  # of an entry: where a table, or a cluster of data, lies
_IN_USE = 1 << 63  # nobody else has this cluster: the topmost bit of an entry
_SUBCLUSTERS = 32  # of a cluster whose entry has a bitmap


def cut_data(fd: int, header: Qcow2, length: int, seconds: float) -> str:
    """Which data ends behind the end of a file of so many bytes, in words behind its name; "" for none.

    The tables are walked only where the file ends within a cluster.  Raises TimeoutError, OSError.
    """
    last, deadline = length - length % header.cluster, time.monotonic() + seconds
    if last == length:
        return ""
    for at, entry in _entries(fd, header, last, deadline):
        if not entry:
            ends = last + header.cluster
            return f"is cut: the table of its data from byte {at} on ends at {ends}, the file at {length}"
        ends = last + min(_used(header, entry), header.size - at)
        if ends > length:
            return f"is cut: its data at byte {at} ends at {ends}, the file at {length}"
    return ""


def _entries(fd: int, header: Qcow2, cluster: int, deadline: float) -> Iterator[tuple[int, bytes]]:
    """Where in the image a cluster of the file is data, and its entry in the table; no entry: it is a table itself."""
    width = 16 if header.extended else 8
    found = [struct.pack(">Q", cluster | flag) for flag in (_IN_USE, 0)] if cluster else []
    each = header.cluster // width * header.cluster  # bytes of the image that one table tells of
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


def _used(header: Qcow2, entry: bytes) -> int:
    """The bytes of a cluster of data up to the last one that was written."""
    if not header.extended:
        return header.cluster
    written = struct.unpack_from(">I", entry, 12)[0] if len(entry) == 16 else 0  # the first subcluster is its last bit
    return int(written.bit_length()) * (header.cluster // _SUBCLUSTERS)
