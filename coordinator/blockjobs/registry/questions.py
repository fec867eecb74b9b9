"""Questions to a host with a waiting asker: probes of volumes, a resize, a prune, and others.

The asker makes up a name and blocks on a list of the same name for a moment; no state depends on the answer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from blockjobs.model.ids import Host
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client

KEEP: Final = 10  # seconds until an unread answer expires
BLOCK: Final = 1.0  # seconds of waiting in one call; below every client's timeout


class Questions:
    def __init__(self, client: Client) -> None:
        self._redis = client

    @staticmethod
    def new() -> str:
        """A name for a question."""
        return uuid.uuid4().hex

    def put(self, host: Host, question: str, what: Mapping[str, Any], seconds: float) -> None:
        """Store the content of a question to a host, for ``seconds`` seconds."""
        self._redis.set(keys.asked(host, question), codec.pack_value(dict(what)), px=round(seconds * 1000))

    def take(self, host: Host, question: str) -> dict[str, Any] | None:
        """Take the content of a question; None: the question has expired, or was taken already."""
        packed = self._redis.getdel(keys.asked(host, question))
        found: dict[str, Any] | None = codec.unpack_value(packed) if packed else None
        return found

    def permit(self, host: Host, question: str, seconds: float) -> None:
        """Permit a host to carry out a question once."""
        self._redis.set(keys.permit(host, question), 1, px=round(seconds * 1000))

    def take_permit(self, host: Host, question: str) -> bool:
        """Take the permission; False if it has expired or was taken.  Only one process can take a permission."""
        return bool(self._redis.delete(keys.permit(host, question)))

    def answer(self, host: Host, question: str, value: Any) -> None:
        pipe = self._redis.pipeline(transaction=True)  # both or none: without an expiry the list would stay forever
        pipe.lpush(keys.reply(host, question), codec.pack_value(value))
        pipe.expire(keys.reply(host, question), KEEP)
        pipe.execute()

    def wait(self, host: Host, question: str, seconds: float) -> Any:
        """The answer; None if no answer arrives in time.

        One call blocks for less than the client's timeout, as a silent host must not be mistaken for an absent Redis.
        """
        give_up = time.monotonic() + seconds
        while True:
            left = max(give_up - time.monotonic(), 0.001)
            found = self._redis.blpop([keys.reply(host, question)], timeout=min(left, BLOCK))
            if found:
                return codec.unpack_value(found[1])
            if left <= BLOCK:
                return None
