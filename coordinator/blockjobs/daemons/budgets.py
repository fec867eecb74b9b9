"""Divide the budgets of stores and hosts among the running copies, and admit copies to places in a store.

Once a second, and on every event with an effect on shares: read the copies under a limit, divide, and send the changed
limits.  A lower limit is sent at once; a higher limit is sent when the copies have felt the lower limits.  Without any
limit in the fleet the cost is two reads a second.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from blockjobs.model.budgets import ANY, PAUSED, CopyRate, copy_limits, demanded_rate, timely_limits
from blockjobs.model.ids import Host, JobId
from blockjobs.process.clock import Every, seconds_since_boot
from blockjobs.registry.doors import Registry
from blockjobs.registry.events import Event
from blockjobs.registry.limits import Running, StoreView

log = logging.getLogger(__name__)

CHUNK: Final = 1 << 20  # unreported bytes that a copy may have under way
WINDOW: Final = 2_000  # ms of the window that measures the use of a copy
ASK: Final = 0.05  # seconds between two checks of lowered limits, while higher limits wait
SAME: Final = 0.01  # relative change of a share that is worth no message
SAID: Final = frozenset({"STORE_SET", "STORE_REMOVED", "HOST_LIMITED"})
AFTER: Final = SAID | {
    "ATTEMPT_CLAIMED", "ATTEMPT_RELEASED", "JOB_STATUS_CHANGE", "JOB_UNHELD", "JOB_HELD", "JOB_SPEED",
}  # fmt: skip
Place = tuple[Host, JobId]


@dataclass(slots=True)
class Use:
    """Progress reports of an attempt: (ms, bytes, the limit known to the attempt), oldest first."""

    attempt: str
    told: deque[tuple[int, int, int]] = field(default_factory=deque)

    def add(self, at: int, read: int, felt: int) -> None:
        if at and (not self.told or at > self.told[-1][0]):
            self.told.append((at, read, felt))
        while len(self.told) > 2 and self.told[-1][0] - self.told[1][0] >= WINDOW:
            self.told.popleft()

    def rate(self, under_way: int = 0) -> float | None:
        """Bytes a second; None: the reports span too short a time."""
        if len(self.told) < 2 or self.told[-1][0] - self.told[0][0] < WINDOW // 2:
            return None
        (began, first, _), (now, last, _) = self.told[0], self.told[-1]
        return (last - first + under_way) * 1000 / (now - began)

    def want(self, limit: int) -> int:
        """Bytes a second that the copy would use, estimated from the use under the lowest limit of the window."""
        return demanded_rate(self.rate(CHUNK), min([limit, *(each for _, _, each in self.told)]))


@dataclass(slots=True)
class Given:
    """Number of copies under a budget, and the sum of the copies' limits in bytes a second."""

    copies: int = 0
    speed: int = 0

    def add(self, most: int) -> None:
        self.copies += 1
        self.speed += most


@dataclass
class BudgetDivider:
    registry: Registry
    _stores: dict[str, StoreView] = field(default_factory=dict)
    _hosts: dict[Host, int] = field(default_factory=dict)
    _uses: dict[Place, Use] = field(default_factory=dict)
    _copies: dict[Place, Running] = field(default_factory=dict)
    # by (kind, name) of a budget
    _given: defaultdict[tuple[str, str], Given] = field(default_factory=lambda: defaultdict(Given))
    _each_look: Every = field(default_factory=lambda: Every(1.0))
    _not_before: float = 0.0
    _due: bool = True

    def heard(self, news: Iterable[Event]) -> None:
        """Note whether an event changes shares or frees places; without limits only changes of limits count."""
        names = AFTER if self._stores or self._hosts else SAID
        self._due |= any(event.name in names for event in news)

    def look(self) -> set[Host]:
        """Divide the budgets if a division is due; return the hosts to ring, where a copy got a place in a store."""
        began = seconds_since_boot()
        if not (self._each_look() or (self._due and began >= self._not_before)):
            return set()
        self._due = False
        self._given.clear()
        self._learn()
        if not self._stores and not self._hosts:
            return set()
        running = self.registry.limits.running(self._stores, self._hosts)
        self._measure(running)
        for each in running:
            self._give(each.host, each.store, each.has.at_most)
        waits = self._divide()
        freed = self._free([each for each in running if each.store and not each.claimed])
        self._not_before = seconds_since_boot() + 4 * (
            seconds_since_boot() - began
        )  # at most a fifth of the time goes into this
        if waits:
            self._due, self._not_before = True, max(self._not_before, began + ASK)
        return freed

    def patience_ms(self, most: int) -> int:
        """Milliseconds to wait for news, ``most`` or less: the wait ends when the next division is due."""
        return min(most, max(1, round((self._not_before - seconds_since_boot()) * 1000))) if self._due else most

    def at_first(self, host: Host, store: str) -> int:
        """Limit of a copy rung now, until a division counts the copy: at most the rest of the budget."""
        # the store is as new as the run that named it
        if store and store not in self._stores:
            self._learn()
        first = 0
        for budget, given in (
            (self._hosts.get(host, 0), self._given["host", host]),
            (self._stores[store].speed if store in self._stores else 0, self._given["store", store]),
        ):
            if budget:
                share = max(1, budget // (given.copies + 1))
                first = min(first or ANY, max(min(PAUSED, share), min(share, budget - given.speed)))
        self._give(host, store, first or ANY)
        return first

    def _learn(self) -> None:
        self._stores = {store.name: store for store in self.registry.limits.stores()}
        self._hosts = self.registry.limits.host_speeds()

    def _give(self, host: Host, store: str, most: int) -> None:
        self._given["host", host].add(most)
        self._given["store", store].add(most)

    def _measure(self, running: Iterable[Running]) -> None:
        self._copies = {(each.host, each.job): each for each in running if each.claimed}
        self._uses = {place: use for place, use in self._uses.items() if place in self._copies}
        for place, each in self._copies.items():
            use = self._uses.get(place)
            if use is None or use.attempt != each.attempt or each.paused:  # its use under other conditions says nothing
                use = self._uses[place] = Use(each.attempt)
            use.add(each.told, each.read, each.felt)

    def _divide(self) -> bool:
        """Hand out the changed limits as far as possible now; return whether some limits have to wait."""
        copies = {
            each.job: CopyRate(
                each.host, each.job, each.store, each.speed, self._uses[place].want(each.limit), each.paused
            )
            for place, each in self._copies.items()
        }
        budgets = {name: store.speed for name, store in self._stores.items()}
        found = copy_limits(copies, budgets, self._hosts)
        differ = {
            each.job: found[each.job] for each in self._copies.values()
            if abs(found[each.job] - each.limit) > SAME * each.limit or (not found[each.job] and each.limit)
        }  # fmt: skip
        has = {each.job: each.has for each in self._copies.values()}
        now = timely_limits(differ, has, copies, budgets, self._hosts)
        self.registry.limits.limit({place: now[place[1]] for place in self._copies if place[1] in now})
        flows = dict.fromkeys(self._stores, 0.0)
        for place, each in self._copies.items():
            if each.store:
                flows[each.store] += self._uses[place].rate() or 0.0
        self.registry.limits.flow({n: round(flow) for n, flow in flows.items() if round(flow) != self._stores[n].flow})
        return len(now) < len(differ)

    def _free(self, suspects: Iterable[Running]) -> set[Host]:
        """Give back the places of ended copies, and offer the free places to waiting copies."""
        ended: dict[str, list[Place]] = {}
        for each in suspects:
            ended.setdefault(each.store, []).append((each.host, each.job))
        hosts: set[Host] = set()
        for name, store in self._stores.items():
            freed = self.registry.limits.sweep(name, ended[name]) if name in ended else 0
            if store.waiting:
                free = store.waiting if not store.jobs else store.jobs - store.running + freed
                hosts |= self.registry.limits.admit(name, free)
        return hosts
