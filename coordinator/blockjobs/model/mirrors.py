"""The options of a job of type ``mirror``, checked with QEMU's texts and in QEMU's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from blockjobs.model.errors import BadField

SYNC: Final = ("full", "top", "none")
GRANULARITY: Final = 64 << 10  # bytes; unit in which a dirty chunk is written
BUFFER: Final = 16 << 20  # bytes in flight
SMALLEST, LARGEST = 512, 64 << 20  # bytes, of the granularity
SIZES_DIFFER: Final = "Source and target image have different sizes"
ANEW: Final = "anew"  # an option of this project: the target is recreated, so an existing target may have any size
KEYS: Final = ("granularity", "buf-size", "copy-mode", "quiesce")


def mirror_options(given: Mapping[str, Any], *, sync: str = "full") -> dict[str, Any]:
    """The ``options`` of a mirror's ``JobSpec``; 0 and missing keys stand for the defaults.

    Raises:
        BadField: with QEMU's text.
    """
    if sync not in SYNC:
        raise BadField("sync", f"Sync mode '{sync}' not supported")
    granularity, buffer = given.get("granularity") or 0, given.get("buf-size") or 0
    if granularity and not SMALLEST <= granularity <= LARGEST:
        raise BadField("granularity", "Parameter 'granularity' expects a value in range [512B, 64MB]")
    if granularity & (granularity - 1):
        raise BadField("granularity", "Parameter 'granularity' expects a power of 2")
    if buffer < 0:
        raise BadField("buf-size", "Invalid parameter 'buf-size'")
    if given.get("copy-mode", "background") != "background":
        raise BadField("copy-mode", f"Parameter 'copy-mode' does not accept value '{given['copy-mode']}'")
    return {key: given[key] for key in KEYS if given.get(key)}
