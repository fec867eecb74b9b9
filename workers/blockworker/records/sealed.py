"""JSON texts with a digest of the remaining bytes: a changed byte is always noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from blake3 import blake3

KEY: Final = "digest"
_BLANK: Final = "0" * 64  # placeholder while the digest is computed


def seal_json(keys: Mapping[str, Any], indent: int | None = None) -> bytes:
    """The JSON text of an object, with its digest as the last key."""
    rest = {name: value for name, value in keys.items() if name != KEY}
    text = json.dumps({**rest, KEY: _BLANK}, indent=indent).encode() + b"\n"
    at = text.rindex(_BLANK.encode())
    return text[:at] + blake3(text).hexdigest().encode() + text[at + len(_BLANK) :]


def is_whole(text: bytes, digest: object) -> bool:
    """Whether the text matches ``digest``, which was read from the text."""
    told = str(digest).encode(errors="replace")
    before, _, after = text.rpartition(told)
    return len(told) == len(_BLANK) and blake3(before + _BLANK.encode() + after).hexdigest().encode() == told
