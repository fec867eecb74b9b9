"""Every flush, exclusive creation, lock, token, identity and permission check of the data plane, one line each."""

from __future__ import annotations

from typing import Final

from lines import beneath

from data_plane.attempts import ATTEMPTS, FREEZES
from data_plane.cage import CAGE
from data_plane.copying import COPY
from data_plane.decisions import DECISIONS, SWEEPING
from data_plane.flushes import FLUSHES
from data_plane.identities import IDENTITIES
from data_plane.locks import LOCKS, TOKENS
from data_plane.permissions import NAMES, PERMISSIONS

DATA_PLANE: Final = beneath(
    "workers/blockworker",
    FLUSHES, LOCKS, TOKENS, DECISIONS, SWEEPING, IDENTITIES, PERMISSIONS, NAMES, COPY, CAGE, ATTEMPTS, FREEZES,
)  # fmt: skip
