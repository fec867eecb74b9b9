"""Drivers: one kind of job each, found by the name that QEMU gives it."""

from __future__ import annotations

from typing import Final

from blockworker.drivers.backup import Backup
from blockworker.drivers.base import Driver

DRIVERS: Final[dict[str, Driver]] = {"backup": Backup()}
