"""How much memory and time QEMU's tools get.  Whoever passes a limit has failed: the job ends with the file's name.

Measured: README of this table is docs/formats.md, "Limits of QEMU's tools".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MEMORY: Final = 4 << 30  # bytes of address space of one tool


@dataclass(frozen=True, slots=True)
class ToolPatience:
    """Seconds that a tool has for one thing."""

    start: float = 30.0  # qemu-nbd: from its start to the size of the image, and from the goodbye to its end
    answer: float = 600.0  # qemu-nbd: one answer while data is copied; a slow disk is no broken one
    glance: float = 20.0  # qemu-nbd: one answer while OPEN, or a plan, looks at an image
    call: float = 60.0  # qemu-img: making, describing or resizing an image
    check: float = 240.0  # qemu-img: checking all tables of an image at PREPARE, whose barrier waits for 300
    look_check: float = 20.0  # the same at OPEN, whose barrier waits for 60; what is not through is checked by the copy
    copy_check: float = 3600.0  # the same in an attempt, before the first byte is copied
    death: float = 5.0  # after SIGKILL: who is still there hangs in the kernel, and is not waited for


PATIENCE: Final = ToolPatience()
