"""Unix sockets, as every process of ours may have one."""

from __future__ import annotations

from typing import Final

LONGEST_SOCKET: Final = 107  # bytes of a path: sun_path of unix(7) less its NUL
