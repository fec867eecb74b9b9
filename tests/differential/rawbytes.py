"""Bytes in, messages out: what a client that knows no library sends, and what it is answered."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Final

DEADLINE: Final = 30.0
LAST: Final = "the last one"


def exchange(path: Path, sent: list[bytes]) -> list[Any]:
    """Connect, send it all at once, and read replies until the one to a last command of our own."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(DEADLINE)
        caller.connect(str(path))
        with caller.makefile("rwb") as stream:
            replies = [json.loads(stream.readline())]
            last = {"execute": "query-jobs", "id": LAST}
            stream.write(b"".join([*sent, b"\n", json.dumps(last).encode(), b"\n"]))
            stream.flush()
            while replies[-1].get("id") != LAST:
                replies.append(json.loads(stream.readline()))
    return replies
