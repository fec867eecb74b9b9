"""The coordinator: rings hosts for jobs that wait for a slot, judges who is alive, and recovers what was forgotten."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from blockjobs.daemons.doorbell import Doorbell
from blockjobs.daemons.loop import Every, boottime
from blockjobs.daemons.shares import Shares
from blockjobs.daemons.silence import Silence
from blockjobs.daemons.terms import Terms
from blockjobs.model.hanging import HangingPath
from blockjobs.model.ids import Host, JobId
from blockjobs.store.attempts import LEASE
from blockjobs.store.registry import Registry
from blockjobs.store.retention import KEEP_RUNS

log = logging.getLogger(__name__)

HOST_LEASE: Final = 6.0  # seconds without a heartbeat (one a second) after which a host counts as down
DOORBELL_LOST: Final = 30_000  # ms after which an unanswered doorbell is rung again, if a slot is free
KEEP_EVENTS: Final = 7 * 24 * 3600 * 1000  # ms


@dataclass
class Coordinator:
    registry: Registry
    doorbell: Doorbell
    ended: Callable[[], None] = lambda: None  # told that a run has ended
    keep_runs: int = KEEP_RUNS  # ms
    keep_events: int = KEEP_EVENTS
    shares: Shares = field(init=False)
    terms: Terms = field(init=False)
    _seq: str = ""
    _slots: dict[Host, int] = field(default_factory=dict)
    _hanging: dict[Host, tuple[HangingPath, ...]] = field(default_factory=dict)
    _beats: Silence[Host] = field(default_factory=lambda: Silence(HOST_LEASE))
    _leases: Silence[tuple[Host, JobId]] = field(default_factory=lambda: Silence(LEASE))
    _redis_run: str = ""
    _forgetting: bool = False
    _each_look: Every = field(default_factory=lambda: Every(1.0))
    _each_recovery: Every = field(default_factory=lambda: Every(10.0))
    _each_reminder: Every = field(default_factory=lambda: Every(30.0))

    def __post_init__(self) -> None:
        self.shares, self.terms = Shares(self.registry), Terms(self.registry)

    def once(self) -> None:
        """One turn: what happened since the last one, and what is due by the clock."""
        if not self._seq:
            self.registry.hosts.incarnate()
            self._seq = self.registry.hosts.daemon_seq("coordinator")
            for host in self.registry.hosts.known():
                self._slots.setdefault(host, 0)
        if self._each_look():
            self._look()
            self.shares.look()
            self.terms.look()
            self._dispatch(set(self._slots))
        if self._each_recovery():
            self._recover()
        if self._each_reminder():
            self.registry.fate.remind()
            self.registry.events.trim(self.keep_events)
            self._forgetting = True
        if self._forgetting:
            self._forget()
        news = self.registry.events.after(self._seq, block_ms=self.shares.patience_ms(500))
        if not news:
            self._dispatch(self.shares.look())
        else:
            self._seq = news[-1].seq
            if any(event.name == "RUN_ENDED" for event in news):
                self.ended()
            if new := {Host(e.id) for e in news if e.name == "HOST_REGISTERED"} - self._slots.keys():
                log.info("registered: %s", ", ".join(sorted(new)))
                self._slots.update(dict.fromkeys(new, 0))
                self._look()
            self.terms.heard(news)
            self.shares.heard(news)
            self._dispatch({Host(event.host) for event in news if event.host} | self.shares.look())

    def _forget(self) -> None:
        """Forget some runs; the next turn goes on if there may be more, so that many small ones do not pile up."""
        gone = self.registry.retention.forget(self.registry.hosts.now(), keep_ms=self.keep_runs)
        for run in gone:
            log.info("run %s: forgotten", run)
        self._forgetting = bool(gone)

    def _recover(self) -> None:
        """What others left half done, and what is over by its own time."""
        self.registry.submit.recover(self.registry.hosts.now())
        for volume in self.registry.nodes.expire(self.registry.hosts.now()):
            log.warning("volume %s: no longer reserved: whoever did so is gone, or was never answered", volume)
        for job, reason in self.registry.verbs.expire():
            log.info("job %s: no longer held by %s: its time is over", job, reason)
        for reason in self.registry.holds.reap():
            log.info("'%s' no longer holds any job", reason)

    def _dispatch(self, hosts: set[Host]) -> None:
        for host in self.registry.hosts.waiting(hosts & self._slots.keys()):
            for job in self.registry.hosts.ring(
                host, self._slots[host], lost_after_ms=DOORBELL_LOST, limit=self.shares.at_first,
                hanging=self._hanging.get(host, ()),
            ):  # fmt: skip
                log.debug("job %s: ringing %s", job, host)
                self.doorbell.copy(host, job)

    def _look(self) -> None:
        """Judge hosts and leases."""
        hosts = self.registry.hosts
        hosts.daemon_beat("coordinator", self._seq)
        run = hosts.run_id()
        if run != self._redis_run:
            self._redis_run = run
            self._beats.restart()
            self._leases.restart()
        cards = hosts.cards(sorted(self._slots))
        silent = self._beats.look(boottime(), {host: card.beat for host, card in cards.items()})
        came_back, known = False, hosts.known()
        self._hanging = {host: card.hanging for host, card in cards.items() if card.hanging}
        for host, card in cards.items():
            self._slots[host] = card.places
            state = "left" if card.says == "left" else "down" if host in silent else "up"
            if known.get(host, ("", 0))[0] == state:
                continue  # a call a host and second would be most of what an idle fleet costs
            if hosts.judge(host, state):
                log.log(logging.INFO if state == "up" else logging.WARNING, "host %s: %s", host, state)
                came_back |= state == "up"
        if came_back:
            self.registry.fate.remind()
        leases = hosts.leases(sorted(self._slots))
        for host, job in self._leases.look(boottime(), leases):
            if cards[host].says == "here" and host not in silent:
                token = leases[host, job][0]
                log.warning("job %s: no checkpoint for %.0f s, attempt %s on %s is fenced", job, LEASE, token, host)
                hosts.fence(host, job, token)
