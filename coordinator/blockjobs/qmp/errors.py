"""Error replies: QEMU's error classes, and a text."""

from __future__ import annotations

from typing import Any, Final

GENERIC: Final = "GenericError"
NO_COMMAND: Final = "CommandNotFound"
NOT_ACTIVE: Final = "DeviceNotActive"


class QmpError(Exception):
    """An error reply; clients may look at the class, people read the text."""

    def __init__(self, desc: str, kind: str = GENERIC) -> None:
        super().__init__(desc)
        self.desc, self.kind = desc, kind

    def to_json(self) -> dict[str, Any]:
        return {"class": self.kind, "desc": self.desc}
