"""Damage that is done to images of a format, in place."""

from __future__ import annotations

import struct


def qcow2_with(offset, value):
    def change(path):
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(value)

    return change


def count_cluster(path, number, times):
    """Write into the table of counts of a qcow2 how often a cluster is used."""
    with path.open("r+b") as file:
        table = struct.unpack_from(">Q", file.read(104), 48)[0]
        file.seek(table)
        block = struct.unpack(">Q", file.read(8))[0]
        file.seek(block + 2 * number)
        file.write(struct.pack(">H", times))


def counted_as_free(path):
    """A cluster that is in use, in the table of counts, as one that nobody uses."""
    count_cluster(path, 6, 0)
