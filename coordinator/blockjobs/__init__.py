"""blockjobs: QEMU's block jobs for a fleet.  This package is the control plane; ``blockworker`` moves the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockjobs.client.fleet import Fleet

__all__ = ["Fleet", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Fleet":  # imported late: the command line must start quickly
        from blockjobs.client.fleet import Fleet  # noqa: PLC0415

        return Fleet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
