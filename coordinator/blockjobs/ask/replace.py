"""Replacement of a lost registry: have hosts with decisions of the lost registry accept this registry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.question import put_question
from blockjobs.model.errors import HostDown
from blockjobs.model.ids import Host
from blockjobs.registry.doors import Registry
from blockjobs.registry.hosts import check_host

PATIENCE: Final = 20.0  # seconds; a host answers within 15


class Replace:
    def __init__(self, registry: Registry, doorbell: Doorbell, patience: float = PATIENCE) -> None:
        self._registry, self._doorbell, self._patience = registry, doorbell, patience

    def __call__(self, hosts: Sequence[Host], gone: str) -> Iterator[tuple[Host, str]]:
        """Each host with the reason of a failure, "" for success.  A call may be repeated at any time."""
        known, asked = self._registry.hosts.known(), dict[Host, str]()
        for host in hosts:
            try:
                check_host(host, known.get(host))
            except HostDown as down:
                yield host, str(down)
                continue
            what = {"ask": "replace", "gone": gone}
            asked[host] = put_question(
                self._registry.questions, self._doorbell, host, what, patience=self._patience, changes=True
            )  # fmt: skip
        give_up = time.monotonic() + self._patience
        for host, question in asked.items():
            answer = self._registry.questions.wait(host, question, max(0.0, give_up - time.monotonic()))
            if answer is None:
                yield host, f"host '{host}' did not answer within {self._patience:.0f} s"
            else:
                yield host, str(answer.get("text", "")) if "errno" in answer else ""
