"""The finalizer: deferred completion.  Read the due transactions, ask the pure core, and carry out the answer.

Any number of finalizers may run, and may die at any point: every effect is a script without effect the second time.
"""

from __future__ import annotations

import errno
import logging
import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.daemons.remembered import Remembered
from blockjobs.daemons.silence import GAP
from blockjobs.model.barriers import (
    BY_HOSTS,
    AwaitTurn,
    AwaitUser,
    BarrierView,
    Decide,
    Decision,
    Do,
    Finished,
    HostTally,
    Next,
    Retry,
    Step,
    next_action,
)
from blockjobs.model.hanging import HangingPath
from blockjobs.model.ids import Host, TxnId
from blockjobs.model.liveness import WorkerName
from blockjobs.process.clock import Every, seconds_since_boot
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry.bells import LOST_AFTER
from blockjobs.registry.doors import Registry
from blockjobs.registry.format import raise_format
from blockjobs.registry.scripts import Restarted
from blockjobs.registry.transactions import Due

log = logging.getLogger(__name__)

DEADLINES: Final = {Step.OPEN: 60.0, Step.CUT: 120.0, Step.PREPARE: 300.0, Step.SETTLE: 60.0}  # seconds
EXCUSED: Final = 10  # deadlines granted to a host for a transaction while the host answers for other transactions
EXCUSED_WHILE_HANGING: Final = 3  # the same while the host reports hanging paths
RING_AGAIN: Final = 10.0  # seconds until a host is rung again for a step still owed
LANES: Final = 4  # transactions handled side by side: most of the time is spent waiting for Redis' disk
# transactions handed to the lanes at once: the list of due transactions is read once for the whole batch
QUEUE: Final = 64
LOOK: Final = 0.2  # seconds that finished turns wait at most for the rest of the batch
TURN: Final = 1.0  # seconds after which a transaction makes room until the next turn
LONG_LOOK: Final = 0.005  # seconds; a transaction with a longer reading time rests for twice the reading time
REST: Final = 1.0  # seconds of a turn's wait for a due transaction
ASKING: Final = 10.0  # seconds until hosts are asked for due transactions even if no host has knocked
LONGEST_REST: Final = 1.0  # seconds
STARTED_ANEW: Final = "Redis was started anew"
NAMED: Final = 3  # hanging paths in the text of a missed deadline


@dataclass(slots=True)
class Waiting:
    """The wait for a step in this process; a loss of this state costs a repeated bell, no more."""

    step: Step
    unrung: set[Host] = field(default_factory=set)  # hosts without a running steps worker
    rung: dict[Host, tuple[float, HostTally]] = field(default_factory=dict)
    # For the rung hosts: time of the last answer, and number of members that owed the step then.
    heard: dict[Host, tuple[float, int]] = field(default_factory=dict)

    def listen(self, shares: Mapping[Host, HostTally], now: float) -> list[Host]:
        """Note the time for hosts with new answers since the last check; return these hosts."""
        answered = []
        for host, (_, owing) in self.heard.items():
            if (left := shares[host].owing[self.step]) != owing:
                self.heard[host] = (now, left)
                answered.append(host)
        return answered

    def silent_for(self, seconds: float, now: float) -> frozenset[Host]:
        """The hosts without any answer for ``seconds``: a host with answers piece by piece is not late."""
        return frozenset(host for host, (at, _) in self.heard.items() if now - at > seconds)


class Unmoved(Exception):
    """A step of the finalizer's own changed nothing: repeated at once, the step would change nothing for ever."""


@dataclass
class Finalizer:
    registry: Registry
    doorbell: Doorbell
    deadlines: dict[Step, float] = field(default_factory=lambda: dict(DEADLINES))
    quarantine: Quarantine = field(default_factory=Quarantine)
    _waiting: dict[TxnId, Waiting] = field(default_factory=dict)
    _answered: dict[Host, float] = field(default_factory=dict)  # time of a host's last answer, to any step
    _hanging: dict[Host, tuple[HangingPath, ...]] = field(default_factory=dict)  # as reported since the last check
    _rest: dict[TxnId, float] = field(default_factory=dict)  # time before which a transaction is not handled
    _under_way: dict[TxnId, Future[None]] = field(default_factory=dict)
    _lanes: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(LANES, "lane"))
    _silent: frozenset[Host] = frozenset()
    _hosts: set[Host] = field(default_factory=set)  # hosts that may ask for a turn of a transaction
    remembered: Remembered = field(default_factory=lambda: Remembered(None))
    _run_id: str = ""  # run id of Redis at the last check
    _incarnation: str = ""
    _doubt: str = ""  # why no transaction is decided
    _doubts: dict[TxnId, str] = field(default_factory=dict)  # by transaction: why no decision is made, though possible
    _heard: float | None = None  # when Redis last returned the list of due transactions
    _woken: bool = True  # whether hosts may have asked for a turn since the last question to the hosts
    _each_asking: Every = field(default_factory=lambda: Every(ASKING))
    _each_look: Every = field(default_factory=lambda: Every(1.0))

    def once(self) -> None:
        """Do one turn: give every due transaction a lane, so that no transaction waits for another."""
        if self._each_look():
            self._look()
        if len(self._under_way) >= LANES:
            self._collect()
            return
        asks = self._woken or self._each_asking()
        due, now = self.registry.transactions.due(self._hosts if asks else ()), seconds_since_boot()
        self._notice_absence(now)
        awake = [each for each in due if self._rest.get(each.txn, 0.0) <= now and each.txn not in self._under_way]
        for each in awake[:QUEUE]:
            self._under_way[each.txn] = self._lanes.submit(self._turn, each)
        self._woken = True
        if self._under_way:
            self._collect()
        elif not due:
            self._woken = self.registry.transactions.wait(REST, self._hosts)
        else:
            time.sleep(max(0.0, min(0.5, min(self._rest.get(each.txn, 0.0) for each in due) - now)))

    def _look(self) -> None:
        """Once a second: beat, and make transactions due again that have waited for long."""
        self.registry.hosts.daemon_beat("finalizer", aside=self.quarantine.told())
        known = self.registry.hosts.known()
        self._silent = frozenset(host for host, judged in known.items() if judged.lacks(WorkerName.STEPS))
        self._hosts = {*known, *(host for each in [*self._waiting.values()] for host in [*each.rung])}
        self._recall(known)
        self._hanging = {}
        # Drop also transactions ended by another finalizer: no event reaches this finalizer about the end.
        self._rest = {txn: until for txn, until in self._rest.items() if until > seconds_since_boot()}
        waiting = [(txn, waiting) for txn, waiting in [*self._waiting.items()] if txn not in self._under_way]
        waited = [txn for txn, each in waiting if self._impatient(txn, each)]
        self.registry.transactions.remind_of([*waited, *self._over(), *self._doubts])

    def _recall(self, known: Iterable[Host]) -> None:
        """Check whether this registry is known to the hosts and to this finalizer."""
        hosts, memory = list(known), self.registry.memory
        run_id, incarnation = self.registry.hosts.run_id(), self.registry.hosts.incarnate()
        # True also when the registry was emptied while Redis ran
        if (run_id, incarnation) != (self._run_id, self._incarnation):
            if memory.note_restart(run_id, hosts):
                log.warning("Redis was started anew: no transaction is decided before its hosts have sent a heartbeat")
            raise_format(self.registry.client)
            self._run_id, self._incarnation = run_id, incarnation
            self._doubts = dict.fromkeys(self._doubts, STARTED_ANEW)  # an older registry was not told yet
        memory.hear()
        doubt = memory.doubt_all(self.remembered.known.number)
        if doubt and doubt != self._doubt:
            log.error("no transaction is decided: %s", doubt)
        self._doubt = doubt

    def _notice_absence(self, now: float) -> None:
        """Begin every deadline anew after an absence of Redis or of this process: no host could be heard meanwhile."""
        if self._heard is not None and now - self._heard > GAP:
            log.warning("Redis, or this process, was away for %.0f s: all deadlines begin anew", now - self._heard)
            self.registry.transactions.remind_of([*self._waiting])  # each is rung for again
            self._waiting.clear()
        self._heard = now

    def _over(self) -> list[TxnId]:
        """The quarantined transactions due for another try."""
        return [
            TxnId(item.removeprefix(_quarantine_name(TxnId(""))))
            for item in self.quarantine.over(_quarantine_name(TxnId("")))
        ]

    def _collect(self) -> None:
        """Wait for the turns under way, not for long.  Raises redis.RedisError: Redis is away, as a lane has seen."""
        wait(self._under_way.values(), LOOK)
        ended = [txn for txn, turn in self._under_way.items() if turn.done()]
        for turn in [self._under_way.pop(txn) for txn in ended]:
            turn.result()

    def _turn(self, due: Due) -> None:
        """Handle a transaction.  A transaction in quarantine is due again at the end of the pause."""
        if self.quarantine.handle(_quarantine_name(due.txn), partial(self._walk, due)) is None:
            self.registry.transactions.close(due, None, finished=False)

    def _walk(self, due: Due) -> bool:
        """Move a transaction on, and take it off the due list unless the turn ends before; return True."""
        start = self._run_id  # read before any record of this start, or of a later start, of Redis
        try:
            if (end := self._advance(due.txn, start)) is None:
                return True
            finished, view = end
            self.registry.transactions.close(due, view, finished=finished, start=start)
        except Restarted:
            self._doubts.setdefault(due.txn, STARTED_ANEW)  # the transaction is due again
            self.registry.transactions.close(due, None, finished=False)
            return True
        if finished or view is None or view.decision is not None:  # decided, by this or another finalizer
            self._doubts.pop(due.txn, None)
        if finished:
            self._rest.pop(due.txn, None)
        return True

    def _view(self, txn: TxnId, start: str) -> BarrierView | None:
        """The barrier view of a transaction; a transaction with a long reading time rests afterwards.

        Every answer of a host makes the transaction due, and a view reads the tallies of all hosts: without a rest in
        between, the cost of a barrier grows with the square of the number of hosts.
        """
        began = seconds_since_boot()
        view = self.registry.transactions.view(txn, start)
        now = seconds_since_boot()
        if view is not None and (waiting := self._waiting.get(txn)):
            self._answered |= dict.fromkeys(waiting.listen(view.shares, now), now)
        took = now - began
        if took >= LONG_LOOK:
            self._rest[txn] = seconds_since_boot() + min(2 * took, LONGEST_REST)
        else:
            self._rest.pop(txn, None)
        return view

    def _impatient(self, txn: TxnId, waiting: Waiting) -> bool:
        now = seconds_since_boot()
        again = any(now - at > RING_AGAIN for at, _ in waiting.rung.values())
        return again or bool(waiting.unrung - self._silent) or bool(self._late(txn, waiting.step))

    def _advance(self, txn: TxnId, start: str) -> tuple[bool, BarrierView | None] | None:
        """Move a transaction on until a wait; return whether the transaction is over, and the last view.

        Returns None when the turn is used up; the transaction goes on in the next turn.

        Raises:
            Restarted: Redis was started anew, and the records read are from before the start.
            Unmoved: a step was done, and the transaction is unchanged.
        """
        before: tuple[BarrierView, Next] | None = None
        until = seconds_since_boot() + TURN
        while (view := self._view(txn, start)) is not None:
            what = next_action(view, self._silent | self._late(txn, Step.SETTLE))
            if before == (view, what):
                raise Unmoved(f"{what} of transaction {txn} changed nothing")
            before = view, what
            if (finished := self._do(view, what)) is not None:
                return finished, view
            if seconds_since_boot() > until:  # only now: however long all of it takes, each turn does a step
                return None
        self._waiting.pop(txn, None)
        return True, None

    def _do(self, view: BarrierView, what: Next) -> bool | None:
        """Do the next step; return None to go on with the following step, else whether the transaction is over."""
        match what:
            case Decide(decision):
                return self._decide(view, decision)
            case Do(step, hosts) if step in BY_HOSTS:
                if self._give_up(view, step, hosts):
                    return None
                self._ring(view, step, hosts)
                return False
            case Do(Step.RUN, _):
                self._rest_at(view, "run")
                return False
            case Do(step, hosts):
                self._carry_out(view, step, hosts)
            case AwaitTurn():
                self._rest_at(view, view.waits)
                return False
            case Retry():
                self.registry.retries.retry(view)
            case AwaitUser():
                self._rest_at(view, "finalize")
                return False
            case Finished():
                self._waiting.pop(view.txn, None)
                log.info("transaction %s: concluded", view.txn)
                return True
        return None

    def _decide(self, view: BarrierView, decision: Decision) -> bool | None:
        """Write the decision down, unless a host knows of later decisions than this registry."""
        doubt = self._doubt or self.registry.memory.doubt_members(view.txn, view.shares)
        if not doubt:
            if number := self.registry.transactions.settle(view, decision, self._why(view, decision)):
                self.remembered.note(self._incarnation, number)
                log.info("transaction %s: %s", view.txn, decision)
            return None
        if self._doubts.get(view.txn) != doubt:
            log.error("transaction %s: not decided: %s", view.txn, doubt)
            self.registry.transactions.barrier(view.txn, view.barrier, doubt)
            self._doubts[view.txn] = doubt
        return False

    def _carry_out(self, view: BarrierView, step: Step, hosts: frozenset[Host]) -> None:
        """Carry out a step of the finalizer's own, without hosts."""
        fate = self.registry.transactions
        if step is Step.CONCLUDE:
            fate.conclude(view, hosts)
            return
        for host in sorted(hosts):
            match step:
                case Step.START:
                    fate.start(view, host)
                case Step.PEND:
                    fate.pend(view, host)
                case Step.STOP:
                    fate.stop(view, host)
                case _:
                    raise AssertionError(step)

    def _ring(self, view: BarrierView, step: Step, hosts: frozenset[Host]) -> None:
        """Send a step to the hosts that owe the step, unless rung a moment ago without a change since.

        A host that is down is rung on its return.
        """
        waiting = self._waiting.get(view.txn)
        now = seconds_since_boot()
        if waiting is None or waiting.step is not step:
            self._note(view, step)
            waiting = self._waiting[view.txn] = Waiting(step)
        for host in sorted(hosts):
            waiting.heard.setdefault(host, (now, view.shares[host].owing[step]))
            if host in self._silent:
                waiting.rung.pop(host, None)
                waiting.unrung.add(host)
                continue
            waiting.unrung.discard(host)
            at, share = waiting.rung.get(host, (0.0, None))
            if share != view.shares[host] or now - at > RING_AGAIN:
                waiting.rung[host] = (now, view.shares[host])
                # If this process has not sent the earlier message, nothing tells how long the message may have been
                # lost.
                if self.registry.bells.note(host, step, view.txn, lost_after_ms=LOST_AFTER if share else 0):
                    self.doorbell.step(host, step, view.txn)

    def _give_up(self, view: BarrierView, step: Step, hosts: frozenset[Host]) -> bool:
        """After a barrier's deadline, before the decision: fail the members of every late host, and name the hosts.

        The deadline of a host counts from the last answer, as ``_late`` says.
        """
        late = self._late(view.txn, step) & hosts
        if view.decision is not None or not late:
            return False
        limit = self.deadlines[step]
        for host in sorted(late):
            text = f"host {host} did not answer {step.upper()} within {limit:.0f} s{self._named(host, view.txn)}"
            log.warning("transaction %s: %s", view.txn, text)
            self.registry.transactions.fail(view, host, step, errno.ETIMEDOUT, text)
        return True

    def _named(self, host: Host, txn: TxnId) -> str:
        """The paths known to hang on a host, as part of a sentence, this transaction's paths first; "" without any."""
        every = self._hanging_on(host)
        mine = [each for each in every if each.transaction == txn] or every
        paths = dict.fromkeys(each.path for each in mine)
        return f": {', '.join([*paths][:NAMED])} {'hangs' if len(paths) == 1 else 'hang'} there" if paths else ""

    def _late(self, txn: TxnId, step: Step) -> frozenset[Host]:
        """Hosts without an answer to this step in time; a host late to settle delays its own members only.

        A host with answers for other transactions meanwhile is still busy.  Such a host is late only if it reports that
        this transaction hangs, or after a few times the deadline.
        """
        waiting = self._waiting.get(txn)
        if waiting is None or waiting.step is not step:
            return frozenset()
        now = seconds_since_boot()
        silent = waiting.silent_for(self.deadlines[step], now)
        return frozenset(host for host in silent if not self._is_excused(host, txn, waiting, now))

    def _is_excused(self, host: Host, txn: TxnId, waiting: Waiting, now: float) -> bool:
        """Whether a host, silent about a transaction, is at work for other transactions."""
        limit = self.deadlines[waiting.step]
        if now - self._answered.get(host, -math.inf) > limit:
            return False
        hanging = self._hanging_on(host)
        patience = (EXCUSED_WHILE_HANGING if hanging else EXCUSED) * limit
        return now - waiting.heard[host][0] <= patience and all(each.transaction != txn for each in hanging)

    def _hanging_on(self, host: Host) -> tuple[HangingPath, ...]:
        """The paths that hang on a host, read once between two checks."""
        if host not in self._hanging:
            self._hanging[host] = self.registry.hosts.hanging(host)
        return self._hanging[host]

    def _rest_at(self, view: BarrierView, barrier: str) -> None:
        """Ask no host: the process at the end of the waiting makes the transaction due."""
        self._waiting.pop(view.txn, None)
        self._note(view, barrier)

    def _note(self, view: BarrierView, barrier: str) -> None:
        if view.barrier != barrier:
            self.registry.transactions.barrier(view.txn, barrier)

    def _why(self, view: BarrierView, decision: Decision) -> str:
        if decision is Decision.COMMIT:
            return "every member is prepared"
        return "failed or cancelled on " + ", ".join(sorted(h for h, share in view.shares.items() if share.failed))


def _quarantine_name(txn: TxnId) -> str:
    """The quarantine's name for a transaction."""
    return f"transaction {txn}"
