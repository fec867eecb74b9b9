"""Limits of memory and time for QEMU's tools. A tool that passes a limit has failed: the job's error names the file.

Measurements behind this table: docs/formats.md, "Limits of QEMU's tools".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MEMORY: Final = 4 << 30  # bytes of address space of one tool


@dataclass(frozen=True, slots=True)
class ToolPatience:
    """Seconds that a tool has for an operation."""

    start: float = 30.0  # qemu-nbd: from the start to the size of the image, and from the goodbye to the end
    answer: float = 600.0  # qemu-nbd: one answer while data is copied; a slow disk is not a broken disk
    glance: float = 20.0  # qemu-nbd: one answer while OPEN, or a plan, looks at an image
    call: float = 60.0  # qemu-img: making, describing or resizing an image
    check: float = 240.0  # qemu-img: checking all tables of an image at PREPARE, whose barrier waits for 300
    look_check: float = 20.0  # the same at OPEN, whose barrier waits for 60; the copy repeats an unfinished check
    copy_check: float = 3600.0  # the same in an attempt, before the first byte is copied
    death: float = 5.0  # after SIGKILL: a tool that still runs hangs in the kernel, and is not waited for


PATIENCE: Final = ToolPatience()
