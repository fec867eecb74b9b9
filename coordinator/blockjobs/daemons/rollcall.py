"""Judge hosts up or down: the heartbeats of both workers of a host, by the coordinator's own clock."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from blockjobs.daemons.silence import Silence
from blockjobs.model.ids import Host
from blockjobs.model.liveness import Absence, Word, WorkerName, describe_absence, judge_host, judge_worker
from blockjobs.process.clock import seconds_since_boot
from blockjobs.registry.heartbeats import Card
from blockjobs.registry.hosts import Hosts, Judged

log = logging.getLogger(__name__)

HOST_LEASE: Final = 9.0  # seconds without a heartbeat (sent every three) until a worker counts as down

Words = Mapping[WorkerName, Word]


@dataclass
class RollCall:
    """``silence``: the counters of the workers' heartbeats."""

    hosts: Hosts
    silence: Silence[tuple[Host, WorkerName]] = field(default_factory=lambda: Silence(HOST_LEASE))
    _judged: dict[Host, Judged] = field(default_factory=dict)

    @property
    def up(self) -> set[Host]:
        """The hosts judged up."""
        return {host for host, judged in self._judged.items() if judged.state == "up"}

    def lacks(self, host: Host, worker: WorkerName) -> bool:
        """Whether a worker of a host is absent."""
        return self._judged.get(host, Judged("", 0)).lacks(worker)

    def restart(self) -> None:
        """Forget every count: Redis was restarted, and a silent worker may have been cut off."""
        self.silence.restart()

    def look(self, cards: Mapping[Host, Card]) -> list[Host]:
        """Judge every host by the host's card; return the hosts with a changed judgement."""
        counters = {
            (host, worker): card.counter(worker) for host, card in cards.items() for worker in WorkerName
            if card.counter(worker) is not None
        }  # fmt: skip
        silent = self.silence.look(seconds_since_boot(), counters)
        known = self.hosts.known()
        changed = []
        for host, card in cards.items():
            before = known.get(host, Judged("", 0))
            words = {worker: self._judge(host, worker, card, before, silent) for worker in WorkerName}
            if card.copy_beat is None:  # its version tells nothing of its copy worker
                words[WorkerName.COPY] = words[WorkerName.STEPS]
            state, self._judged[host] = judge_host(words), before
            if state is None:
                continue
            self._judged[host] = Judged(state, 0, _worker_absences(words))
            if self._note(host, state, words, before):
                changed.append(host)
        return changed

    def _judge(
        self, host: Host, worker: WorkerName, card: Card, before: Judged, silent: set[tuple[Host, WorkerName]]
    ) -> Word:
        key = (host, worker)
        return judge_worker(
            says=card.word(worker),
            beaten=bool(card.counter(worker)),
            silent=key in silent,
            moved=self.silence.moved(key),
            was_there=not before.state or not before.lacks(worker),
        )

    def _note(self, host: Host, state: str, words: Words, before: Judged) -> bool:
        """Record a new judgement; return True if the state of the host changed."""
        absent = _worker_absences(words)
        if state == before.state and [each[:2] for each in absent] == [each[:2] for each in before.absent]:
            return False  # a call per host and second would be most of the cost of an idle fleet
        judged = self.hosts.judge(host, state, words)
        if judged or absent:
            missing = ", ".join(map(describe_absence, absent))
            level = logging.WARNING if absent else logging.INFO
            log.log(level, "host %s: %s%s", host, state, f": {missing}" if missing else "")
        return judged


def _worker_absences(words: Words) -> tuple[Absence, ...]:
    return tuple(Absence(worker, word, 0) for worker, word in words.items() if word is not Word.UP)
