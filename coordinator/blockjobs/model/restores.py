"""What is special about a job of type ``restore``."""

from __future__ import annotations

from typing import Final

TYPE: Final = "restore"
KEEP_DIGESTS: Final = "keep-digests"  # an option: digests and manifest stay beside what was restored into a file
FORCE: Final = "force"  # an option: what differs from its digest is written all the same, and listed
