"""All lines of all tables: each takes one guard away (``lines``)."""

from __future__ import annotations

from typing import Final

from control_plane import BOTH, CONTROL_PLANE
from data_plane import DATA_PLANE

MUTANTS: Final = (*DATA_PLANE, *CONTROL_PLANE, *BOTH)
