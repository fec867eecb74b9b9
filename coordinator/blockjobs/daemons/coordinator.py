"""The coordinator: ring hosts for waiting jobs, judge which hosts are up, and recover half-done work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.daemons.budgets import BudgetDivider
from blockjobs.daemons.deadlines import Deadlines
from blockjobs.daemons.rollcall import RollCall
from blockjobs.daemons.silence import Silence
from blockjobs.model.hanging import HangingPath
from blockjobs.model.ids import Host, JobId
from blockjobs.model.liveness import WorkerName
from blockjobs.process.clock import Every, read_boot_id, seconds_since_boot
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry.attempts import LEASE
from blockjobs.registry.doors import Registry
from blockjobs.registry.retention import KEEP_RUNS

log = logging.getLogger(__name__)

DOORBELL_LOST: Final = 30_000  # ms until an unanswered doorbell is rung again, if a slot is free
UNCERTAIN: Final = 24 * 3600.0  # seconds without forgetting, after the clock jumped or was unwatched
PATIENCE: Final = 250  # ms of a turn's wait for news
KEEP_EVENTS: Final = 7 * 24 * 3600 * 1000  # ms


@dataclass
class Coordinator:
    registry: Registry
    doorbell: Doorbell
    ended: Callable[[], None] = lambda: None  # called when a run has ended
    keep_runs: int = KEEP_RUNS  # ms
    keep_events: int = KEEP_EVENTS
    quarantine: Quarantine = field(default_factory=Quarantine)
    shares: BudgetDivider = field(init=False)
    terms: Deadlines = field(init=False)
    _seq: str = ""
    _slots: dict[Host, int] = field(default_factory=dict)
    _hanging: dict[Host, tuple[HangingPath, ...]] = field(default_factory=dict)
    rollcall: RollCall = field(init=False)
    _leases: Silence[tuple[Host, JobId]] = field(default_factory=lambda: Silence(LEASE))
    _busy: frozenset[Host] = frozenset()  # hosts with attempts at the last check of leases
    _redis_run: str = ""
    _at_boot: int = 0  # ms since the epoch, by the steady clock
    _certain_at: float = 0.0  # when ages are certain again, and old runs may be forgotten
    _forgetting: bool = False
    # whether this process has withdrawn the messages sent earlier to hosts now down
    _withdrawn: bool = False
    _each_look: Every = field(default_factory=lambda: Every(1.0))
    _each_lease_look: Every = field(default_factory=lambda: Every(2.0))  # as often as an attempt makes a checkpoint
    _each_recovery: Every = field(default_factory=lambda: Every(10.0))
    _each_reminder: Every = field(default_factory=lambda: Every(30.0))

    def __post_init__(self) -> None:
        self.shares, self.terms = BudgetDivider(self.registry), Deadlines(self.registry)
        self.rollcall = RollCall(self.registry.hosts)

    def once(self) -> None:
        """Do one turn: handle the events since the last turn, and the work due by the clock.

        The parts of a turn catch errors separately: no part stops the rest.
        """
        part = self.quarantine.part
        if not self._seq:
            self._begin()
        if self._each_look():
            part("the clock of Redis", self._watch_clock)  # before anything is judged by it
            part("the look at hosts and leases", self._look)
            self.registry.hosts.daemon_beat("coordinator", self._seq, self.quarantine.told())
            part("the terms of runs", partial(self.terms.look, self._now(), self.quarantine.handle))
            self._dispatch(set(self._slots) | self._share())
        part("hosts that are new", self._welcome)
        if self._each_recovery():
            part("what others left half done", self._recover)
        if self._each_reminder():
            part("what is unfinished", self.registry.transactions.remind)
            part("the age of events", partial(self.registry.events.trim, self.keep_events))
            self._forgetting = True
        if self._forgetting:
            self._forgetting = bool(part("the end of retention", self._forget))
        self._listen()

    def _begin(self) -> None:
        """Go on where the previous coordinator stopped."""
        self.registry.hosts.incarnate()
        self._seq = self.registry.hosts.daemon_seq("coordinator")
        for host in self.registry.hosts.known():
            self._slots.setdefault(host, 0)

    def _welcome(self) -> None:
        """Check newly registered hosts at once."""
        if not (arrivals := self.registry.hosts.list_arrivals()):
            return
        if new := {*arrivals} - self._slots.keys():
            log.info("registered: %s", ", ".join(sorted(new)))
            self._slots.update(dict.fromkeys(new, 0))
        self._look()
        self._dispatch({*arrivals})
        self.registry.hosts.drop_arrivals(arrivals)

    def _listen(self) -> None:
        """Wait for news for a short time, and act on the news."""
        news = self.registry.events.after(self._seq, block_ms=self.shares.patience_ms(PATIENCE))
        if not news:
            self._dispatch(self._share())
            return
        self._seq = news[-1].seq
        if any(event.name == "RUN_ENDED" for event in news):
            self.ended()
        self.quarantine.part("the terms of runs", partial(self.terms.heard, news, self.quarantine.handle))
        self.shares.heard(news)
        self._dispatch({Host(event.host) for event in news if event.host} | self._share())

    def _share(self) -> set[Host]:
        """Divide the budgets if a division is due; return the hosts to ring."""
        return self.quarantine.part("the shares of budgets", self.shares.look) or set()

    def _forget(self) -> bool:
        """Forget some old runs; return whether the next turn has to go on, lest many small runs pile up."""
        if seconds_since_boot() < self._certain_at:
            return False
        now = self._now()
        forgotten = self.registry.retention.forget(now, keep_ms=self.keep_runs, each=self.quarantine.handle)
        for run in forgotten.runs:
            log.info("run %s: forgotten", run)
        return forgotten.more

    def _recover(self) -> None:
        """Finish half-done work of dead processes, and end overdue reservations and holds."""
        part, now = self.quarantine.part, self._now()
        self.registry.submit.recover(now, self.quarantine.handle)
        part("messages to hosts that are down", self._withdraw)
        for volume in part("volumes that are reserved", partial(self.registry.nodes.expire, now)) or ():
            log.warning("volume %s: the reservation has expired, as its owner is gone or got no answer", volume)
        for job, reason in part("holds of jobs", partial(self.registry.verbs.expire, now)) or ():
            log.info("job %s: the hold of %s has expired", job, reason)
        for reason in part("what holds many jobs", partial(self.registry.holds.reap, now)) or ():
            log.info("'%s' no longer holds any job", reason)

    def _dispatch(self, hosts: set[Host]) -> None:
        waiting = partial(self.registry.hosts.waiting, hosts & self.rollcall.up)
        for host in self.quarantine.part("who waits for a slot", waiting) or ():
            self.quarantine.part(f"host {host}: its line", partial(self._ring, host))

    def _ring(self, host: Host) -> None:
        """Ring a host for its waiting jobs."""
        for job in self.registry.hosts.ring(
            host,
            self._slots[host],
            lost_after_ms=DOORBELL_LOST,
            limit=self.shares.at_first,
            hanging=self._hanging.get(host, ()),
        ):
            log.debug("job %s: host %s is asked to start a copy", job, host)
            self.doorbell.copy(host, job)

    def _watch_clock(self) -> None:
        """Notice a jump of Redis' clock; deadlines and retention do not jump with the clock."""
        verdict, self._at_boot, ms = self.registry.clock.compare(read_boot_id(), round(1000 * seconds_since_boot()))
        if verdict == "steady":
            return
        self._certain_at = seconds_since_boot() + UNCERTAIN
        if verdict == "jumped":
            log.error(
                "Redis' clock was put %+.1f s: deadlines and retries stay as far away as they were; nothing is "
                "forgotten for %.0f h",
                ms / 1000,
                UNCERTAIN / 3600,
            )
        else:
            log.warning(
                "Redis' clock was not observed for %.0f h: nothing is forgotten for %.0f h",
                ms / 3.6e6,
                UNCERTAIN / 3600,
            )

    def _now(self) -> int:
        """Milliseconds by this machine's steady clock, on Redis' time scale; a jump since the last check is ignored."""
        return self._at_boot + round(1000 * seconds_since_boot())

    def _notice_restart(self) -> None:
        """After a start of Redis, count the silence of workers anew, and read the position in the events again.

        Redis may be back with older events and with a clock behind.  Call this before the position in the events is
        saved.
        """
        if (run := self.registry.hosts.run_id()) != self._redis_run:
            self._seq = self.registry.hosts.daemon_seq("coordinator")
            self._redis_run = run
            self.rollcall.restart()
            self._leases.restart()

    def _look(self) -> None:
        """Judge hosts and leases."""
        self._notice_restart()
        cards = self.registry.hosts.cards(sorted(self._slots))
        self._hanging = {host: card.hanging for host, card in cards.items() if card.hanging}
        self._slots |= {host: card.places for host, card in cards.items()}
        began = not self._withdrawn
        changed = self.rollcall.look(cards)
        if any(host in self.rollcall.up for host in changed):
            self.registry.transactions.remind()
        if changed or began:
            self._withdraw()
        if self._each_lease_look():
            self._look_at_leases()

    def _withdraw(self) -> None:
        """Withdraw the messages to hosts not up: a returning host is rung for the work then due."""
        self._withdrawn = True
        for host in self._slots.keys() - self.rollcall.up:
            for worker in WorkerName:
                if worker is WorkerName.COPY or self.rollcall.lacks(host, worker):
                    self.registry.bells.withdraw(host, worker)

    def _look_at_leases(self) -> None:
        """Fence silent attempts; give back the store places of silent attempts on hosts not up."""
        leases = self.registry.hosts.leases(sorted(self._slots), self._busy)
        self._busy = frozenset(host for host, _ in leases)
        silent = self._leases.look(
            seconds_since_boot(), {key: (lease.attempt, lease.beat) for key, lease in leases.items()}
        )
        for (host, job), lease in leases.items():
            away = (host, job) in silent and host not in self.rollcall.up
            if lease.store and lease.vacated != away and (away or (host, job) not in silent):
                self.registry.limits.vacate(host, job, lease.attempt, lease.store, away=away)
        for host, job in silent:
            if not self.rollcall.lacks(host, WorkerName.STEPS):
                attempt = leases[host, job].attempt
                log.warning("job %s: no checkpoint for %.0f s, attempt %s on %s is fenced", job, LEASE, attempt, host)
                self.registry.hosts.fence(host, job, attempt)
