"""The replies that anybody waits for: what a host sees when it looks at some volumes, and that it resized one.

Whoever asks makes up a name and blocks on a list of that name for a moment; nothing depends on the answer's coming.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from blockjobs.model.ids import Host
from blockjobs.store import codec, keys
from blockjobs.store.connection import Client

KEEP: Final = 10  # seconds an answer that nobody fetches is kept


class Questions:
    def __init__(self, client: Client) -> None:
        self._redis = client

    @staticmethod
    def new() -> str:
        """A name for a question."""
        return uuid.uuid4().hex

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
        """The answer; None where it does not come in time."""
        found = self._redis.blpop([keys.reply(host, question)], timeout=max(seconds, 0.001))
        return codec.unpack(found[1]) if found else None
