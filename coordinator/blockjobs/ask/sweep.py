"""Sweep of hosts: remove the files of transactions unknown to the registry, and wait for the results.

A host asks the registry about each transaction right before the removal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.question import put_question
from blockjobs.model.errors import HostDown
from blockjobs.model.ids import Host
from blockjobs.registry.doors import Registry
from blockjobs.registry.hosts import check_host

PATIENCE: Final = 125.0  # seconds; a host answers within 120, with a list of the work not reached
BLOCK: Final = 1.0  # seconds of waiting in one read: less than a client's timeout

Row = Mapping[str, Any]  # host, what, path, transaction, state, text


class Sweep:
    def __init__(self, registry: Registry, doorbell: Doorbell, patience: float = PATIENCE) -> None:
        self._registry, self._doorbell, self._patience = registry, doorbell, patience

    def __call__(self, hosts: Sequence[Host], *, dry: bool, lost: str = "") -> Iterator[Row]:
        """Sweep; return the files removed, published or left, by host; with ``dry``, a preview.

        ``lost``: the incarnation of a lost registry; transactions of the lost registry are swept as well.
        """
        known, asked = self._registry.hosts.known(), dict[Host, str]()
        for host in hosts:
            try:
                check_host(host, known.get(host))
            except HostDown as down:
                yield _unswept_host_row(host, str(down))
                continue
            if why := self._registry.memory.doubt_hosts([host], gone=lost):
                yield _unswept_host_row(host, why)
                continue
            what = {"ask": "sweep", "dry": dry, "lost": lost}
            asked[host] = put_question(self._registry.questions, self._doorbell, host, what, patience=self._patience)
        give_up = time.monotonic() + self._patience
        for host, question in asked.items():
            yield from ({"host": host, "transaction": "", **row} for row in self._answer(host, question, give_up))

    def _answer(self, host: Host, question: str, give_up: float) -> Sequence[Row]:
        while time.monotonic() < give_up:
            if (found := self._registry.questions.wait(host, question, BLOCK)) is not None:
                rows: Sequence[Row] = found
                return rows
        return [
            _unswept_host_row(
                host, f"host '{host}' did not answer within {self._patience:.0f} s: it may still be at it"
            )
        ]


def _unswept_host_row(host: Host, why: str) -> Row:
    return {"host": host, "what": "host", "path": "", "transaction": "", "state": "left", "text": why}
