"""The messages in the queues of hosts: at most one per host, step and transaction, and none for a host in state down.

A step's message is noted when sent, and forgotten when the host takes the message.  A copy's message is noted by
``ring`` and forgotten by the claim.
"""

from __future__ import annotations

from typing import Final

from blockjobs.model.ids import Host, TxnId
from blockjobs.model.liveness import WorkerName
from blockjobs.registry import keys
from blockjobs.registry.connection import Client
from blockjobs.registry.scripts import Scripts

LOST_AFTER: Final = 10_000  # ms until an untaken message may be lost


class Bells:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def note(self, host: Host, step: str, txn: TxnId, *, lost_after_ms: int = LOST_AFTER) -> bool:
        """Note that a step's message is being sent to a host; False: the message is already in the queue."""
        names = [keys.bells(host), keys.queue(host, WorkerName.STEPS)]
        return bool(self._scripts.call("bell", names, [_bell_name(step, txn), lost_after_ms])[0] == b"send")

    def take(self, host: Host, step: str, txn: TxnId) -> None:
        """Note that a host has taken a step's message: a new message may be sent from now on."""
        self._redis.zrem(keys.bells(host), _bell_name(step, txn))

    def wait(self, host: Host, worker: WorkerName) -> bool:
        """Whether sent messages for a worker wait to be taken."""
        if worker is WorkerName.COPY:
            return bool(self._redis.zrange(keys.rung(host), 0, 0))
        pipe = self._redis.pipeline(transaction=False)
        pipe.zrange(keys.bells(host), 0, 0)
        pipe.llen(keys.queue(host, worker))  # questions are noted only in the queue
        return any(pipe.execute())

    def withdraw(self, host: Host, worker: WorkerName) -> None:
        """Withdraw every message for an absent worker; due work is rung for again when the host is back."""
        noted = keys.rung(host) if worker is WorkerName.COPY else keys.bells(host)
        self._redis.unlink(keys.queue(host, worker), noted)


def _bell_name(step: str, txn: TxnId) -> str:
    return f"{step} {txn}"
