"""Values to bytes and back: msgpack behind one version byte that names the format of the stored value."""

from __future__ import annotations

from typing import Any, Final

import msgpack

VERSION: Final = b"\x01"


def pack_value(value: object) -> bytes:
    """``value`` (None, booleans, 64-bit integers, text, bytes, lists, string-keyed dicts) as bytes."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return VERSION + packed


def unpack_value(data: bytes) -> Any:
    """The value of ``pack_value``; lists come back as lists.

    Raises:
        ValueError: the bytes were written by an unknown version, or are damaged.
    """
    if data[:1] != VERSION:
        raise ValueError(f"stored value has format version {data[:1]!r}, this version reads {VERSION!r}")
    return msgpack.unpackb(data[1:], raw=False, strict_map_key=True)
