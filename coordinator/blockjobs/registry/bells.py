"""The messages in the queues of hosts: at most one for each host, step and transaction, and none where a host is down.

A message of a step is noted when it is sent, and forgotten when the host takes it; that of a copy is noted by ``ring``
and forgotten by the claim.
"""

from __future__ import annotations

from typing import Final

from blockjobs.model.ids import Host, TxnId
from blockjobs.model.liveness import WorkerName
from blockjobs.registry import keys
from blockjobs.registry.connection import Client
from blockjobs.registry.scripts import Scripts

LOST_AFTER: Final = 10_000  # ms after which a message that was not taken may be lost


class Bells:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def note(self, host: Host, step: str, txn: TxnId, *, lost_after_ms: int = LOST_AFTER) -> bool:
        """Note that a message of a step is sent to a host; False: one lies there already."""
        names = [keys.bells(host), keys.queue(host, WorkerName.STEPS)]
        return bool(self._scripts.call("bell", names, [_name(step, txn), lost_after_ms])[0] == b"send")

    def take(self, host: Host, step: str, txn: TxnId) -> None:
        """Note that a host has taken the message of a step: from now on another one may be sent."""
        self._redis.zrem(keys.bells(host), _name(step, txn))

    def wait(self, host: Host, worker: WorkerName) -> bool:
        """Whether messages were sent to a worker, and not taken yet."""
        if worker is WorkerName.COPY:
            return bool(self._redis.zrange(keys.rung(host), 0, 0))
        pipe = self._redis.pipeline(transaction=False)
        pipe.zrange(keys.bells(host), 0, 0)
        pipe.llen(keys.queue(host, worker))  # questions are noted nowhere else
        return any(pipe.execute())

    def withdraw(self, host: Host, worker: WorkerName) -> None:
        """Take back every message for a worker that is not there; what is due is rung for when its host is back."""
        noted = keys.rung(host) if worker is WorkerName.COPY else keys.bells(host)
        self._redis.unlink(keys.queue(host, worker), noted)


def _name(step: str, txn: TxnId) -> str:
    return f"{step} {txn}"
