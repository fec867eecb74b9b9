"""Probes of volumes on hosts with a short wait for the answer: for refusals at submit time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.question import put_question
from blockjobs.model.errors import HostDown
from blockjobs.model.ids import Host
from blockjobs.registry.doors import Registry
from blockjobs.registry.hosts import check_host

PATIENCE: Final = 3.0  # seconds


class Probe:
    def __init__(self, registry: Registry, doorbell: Doorbell) -> None:
        self._registry, self._doorbell = registry, doorbell

    def __call__(self, looks: Mapping[Host, list[dict[str, Any]]]) -> dict[Host, list[dict[str, Any]]]:
        """Have every host probe some volumes, all hosts at once.

        Raises:
            HostDown: a host is down, or did not answer in time.
        """
        known = self._registry.hosts.known()
        for host in looks:
            check_host(host, known.get(host))
        answers = {}
        for host, answer in self.each(looks).items():
            if isinstance(answer, HostDown):
                raise answer
            answers[host] = answer
        return answers

    def each(
        self, looks: Mapping[Host, list[dict[str, Any]]], patience: float = PATIENCE
    ) -> dict[Host, list[dict[str, Any]] | HostDown]:
        """Like a call, with HostDown as the value for a host without an answer."""
        questions = self._registry.questions
        asked = {
            host: put_question(
                questions,
                self._doorbell,
                host,
                {"ask": "probe", "looks": looks[host], "patience": patience},
                patience=patience,
            )
            for host in looks
        }
        give_up = time.monotonic() + patience
        answers: dict[Host, list[dict[str, Any]] | HostDown] = {}
        for host, question in asked.items():
            found = self._registry.questions.wait(host, question, give_up - time.monotonic())
            answers[host] = HostDown(host, f"did not answer within {patience:.0f} s") if found is None else found
        return answers
