"""Which transactions a registry knows: asked before anything that a host has of one is removed."""

from __future__ import annotations

from collections.abc import Iterable

from blockjobs.model.ids import Host, TxnId
from blockjobs.registry import keys
from blockjobs.registry.connection import Client


def unknown(client: Client, host: Host, txns: Iterable[str]) -> list[TxnId]:
    """Those of some transactions that this registry does not know: no record, no members of the host, no debt of it."""
    each = [TxnId(txn) for txn in txns]
    pipe = client.pipeline(transaction=False)
    for txn in each:
        pipe.exists(keys.txn(txn))
        pipe.exists(keys.members(host, txn))
        pipe.hexists(keys.abandoned(host), txn)
    found = pipe.execute()
    return [txn for at, txn in enumerate(each) if not any(found[3 * at : 3 * at + 3])]
