"""Transactions known to a registry: checked before a host removes any file of a transaction."""

from __future__ import annotations

from collections.abc import Iterable

from blockjobs.model.ids import Host, TxnId
from blockjobs.registry import keys
from blockjobs.registry.connection import Client


def unknown_transactions(client: Client, host: Host, txns: Iterable[str]) -> list[TxnId]:
    """The transactions unknown to this registry: no record, no members on the host, no abandoned files of the host."""
    each = [TxnId(txn) for txn in txns]
    pipe = client.pipeline(transaction=False)
    for txn in each:
        pipe.exists(keys.txn(txn))
        pipe.exists(keys.members(host, txn))
        pipe.hexists(keys.abandoned(host), txn)
    found = pipe.execute()
    return [txn for at, txn in enumerate(each) if not any(found[3 * at : 3 * at + 3])]
