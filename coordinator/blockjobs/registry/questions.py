"""The replies that anybody waits for: what a host sees when it looks at some volumes, and that it resized one.

Whoever asks makes up a name and blocks on a list of that name for a moment; nothing depends on the answer's coming.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from blockjobs.model.ids import Host
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client

KEEP: Final = 10  # seconds an answer that nobody fetches is kept
BLOCK: Final = 1.0  # seconds that one call waits for an answer; below every client's timeout


class Questions:
    def __init__(self, client: Client) -> None:
        self._redis = client

    @staticmethod
    def new() -> str:
        """A name for a question."""
        return uuid.uuid4().hex

    def put(self, host: Host, question: str, what: Mapping[str, Any], seconds: float) -> None:
        """Lay down what is asked of a host, for so long."""
        self._redis.set(keys.asked(host, question), codec.pack(dict(what)), px=round(seconds * 1000))

    def take(self, host: Host, question: str) -> dict[str, Any] | None:
        """What is asked; None where nobody asks it any more, or another one took it."""
        packed = self._redis.getdel(keys.asked(host, question))
        found: dict[str, Any] | None = codec.unpack(packed) if packed else None
        return found

    def permit(self, host: Host, question: str, seconds: float) -> None:
        """Let a host do once what is asked for."""
        self._redis.set(keys.permit(host, question), 1, px=round(seconds * 1000))

    def take_permit(self, host: Host, question: str) -> bool:
        """Whether it was still there: only one of all that ask gets it."""
        return bool(self._redis.delete(keys.permit(host, question)))

    def answer(self, host: Host, question: str, value: Any) -> None:
        pipe = self._redis.pipeline(transaction=True)  # both or none: without an end it would stay for ever
        pipe.lpush(keys.reply(host, question), codec.pack(value))
        pipe.expire(keys.reply(host, question), KEEP)
        pipe.execute()

    def wait(self, host: Host, question: str, seconds: float) -> Any:
        """The answer; None where it does not come in time.

        One call never blocks as long as the client waits for a reply: a host that is silent is no Redis that is away.
        """
        give_up = time.monotonic() + seconds
        while True:
            left = max(give_up - time.monotonic(), 0.001)
            found = self._redis.blpop([keys.reply(host, question)], timeout=min(left, BLOCK))
            if found:
                return codec.unpack(found[1])
            if left <= BLOCK:
                return None
