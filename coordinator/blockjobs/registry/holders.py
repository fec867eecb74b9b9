"""Holders of volumes: a job, or a reservation, with the reason before a space (no job id contains a space)."""

from __future__ import annotations

from blockjobs.model.ids import Host, JobId
from blockjobs.registry import keys
from blockjobs.registry.connection import Client


def type_of(client: Client, holder: str) -> str:
    """The type of a job, or the reason of a reservation; for readers, who are only counted, the type of most jobs."""
    reason, space, _ = holder.partition(" ")
    if space:
        return reason
    host, _, txn = (client.hget(keys.ids(), holder) or b"").decode().partition(" ")
    found = client.hget(keys.job(Host(host), JobId(holder)), "type") if txn else None
    return (found or b"backup").decode()
