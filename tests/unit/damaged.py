"""Damage that is done to images of a format, in place."""

from __future__ import annotations

import struct


def qcow2_with(offset, value):
    def change(path):
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(value)

    return change


def counted_as_free(path):
    """A cluster that is in use, in the table of counts, as one that nobody uses."""
    with path.open("r+b") as file:
        table = struct.unpack_from(">Q", file.read(104), 48)[0]
        file.seek(table)
        block = struct.unpack(">Q", file.read(8))[0]
        file.seek(block + 2 * 6)
        file.write(b"\0\0")
