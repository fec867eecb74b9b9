"""The options of a job of type ``restore``."""

from __future__ import annotations

from typing import Final

TYPE: Final = "restore"
KEEP_DIGESTS: Final = "keep-digests"  # an option: keep digests and manifest beside a restored file
FORCE: Final = "force"  # an option: write and list chunks with wrong digests
