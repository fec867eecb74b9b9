"""Division of a budget: max-min fair among the copies using the budget.  Pure: figures in, figures out.

Figures are bytes per second, as whole numbers.  A limit of 0 means no limit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from blockjobs.model.ids import Host, JobId
from blockjobs.model.numbers import MOST

HUNGRY: Final = 0.9  # fraction of a limit: a copy using more is taken to want as much as possible
ROOM: Final = 1.25  # factor on the measured use of a copy that is not hungry: its want, with room to grow
ANY: Final = MOST  # a want without a bound
PAUSED: Final = 1 << 16  # bytes/s kept for a paused copy: enough to resume with before the next division
K = TypeVar("K", bound=Hashable)


def divide_evenly(budget: int, wants: Mapping[K, int]) -> dict[K, int]:
    """Divide ``budget`` so that no party gets more than its want, and the sum does not exceed the budget.

    A party could get more only at the cost of a party with a smaller or equal share.  Every party with a want above 0
    gets something while the budget has a byte per party.
    """
    given: dict[K, int] = {}
    left = max(0, budget)
    for at, (name, want) in enumerate(sorted(wants.items(), key=lambda item: item[1])):
        given[name] = max(0, min(want, left // (len(wants) - at)))
        left -= given[name]
    return given


def spread_budget(budget: int, wants: Mapping[K, int], most: Mapping[K, int]) -> dict[K, int]:
    """Turn shares into limits, in three rounds over the budget.

    First every party gets its want; then the rest goes to parties able to use more, up to ``most``, so that a growing
    want finds room; then the remainder is divided among all parties.
    """
    given = dict.fromkeys(wants, 0)
    for up_to in ({name: max(1, n) for name, n in wants.items()}, most, dict.fromkeys(wants, ANY)):
        left = max(0, budget - sum(given.values()))
        more = divide_evenly(left, {name: max(0, up_to[name] - n) for name, n in given.items()})
        given = {name: n + more[name] for name, n in given.items()}
    return {name: max(1, n) for name, n in given.items()}  # 0 would mean no limit


@dataclass(frozen=True, slots=True)
class CopyRate:
    """One running copy: ``speed`` is the limit of its job, ``want`` the rate in demand."""

    host: Host
    job: JobId
    store: str
    speed: int = 0
    want: int = ANY
    paused: bool = False

    @property
    def most(self) -> int:
        """The highest rate that the copy could use."""
        return min(self.speed or ANY, PAUSED if self.paused else ANY)


Of = Callable[[CopyRate], str]
Divide = Callable[[int, Mapping[JobId, int]], dict[JobId, int]]  # a budget, and the wants of its copies


def demanded_rate(used: float | None, limit: int) -> int:
    """The rate in demand by a copy, from the measured rate ``used`` (None: not known yet) under ``limit``."""
    if used is None or not limit or used >= HUNGRY * limit:
        return ANY
    return max(1, int(ROOM * used))


def copy_limits(
    copies: Mapping[JobId, CopyRate], stores: Mapping[str, int], hosts: Mapping[Host, int]
) -> dict[JobId, int]:
    """The limit of each copy: the least of the job's limit and the shares of its store and its host; 0: no limit.

    Bandwidth of a store left unused because of a host's limit goes to the other copies of the store, and the other way
    round.
    """
    most = {job: copy.most for job, copy in copies.items()}
    wants = {job: min(copy.want, most[job]) for job, copy in copies.items()}
    by_name = {str(host): n for host, n in hosts.items()}
    from_store = _at_most(wants, _divide_budgets(divide_evenly, copies, wants, by_name, _host_of_copy))
    from_host = _at_most(wants, _divide_budgets(divide_evenly, copies, from_store, stores, _store_of_copy))
    by_host = _divide_budgets(partial(spread_budget, most=most), copies, from_host, by_name, _host_of_copy)
    by_store = _divide_budgets(
        partial(spread_budget, most=_at_most(most, by_host)), copies, from_store, stores, _store_of_copy
    )
    found = {}
    for job, copy in copies.items():
        given = [n for n in (by_host.get(job), by_store.get(job)) if n is not None]
        found[job] = min([*given, copy.speed or ANY]) if given else 0
    return found


@dataclass(frozen=True, slots=True)
class Has:
    """The limit handed to a copy last (``limit``), and the limit that the copy has confirmed (``felt``)."""

    limit: int
    felt: int

    @property
    def at_most(self) -> int:
        """The highest rate possible until the copy confirms a newer limit; ``ANY``: no limit."""
        return max(self.limit or ANY, self.felt or ANY)


def timely_limits(
    found: Mapping[JobId, int],
    has: Mapping[JobId, Has],
    copies: Mapping[JobId, CopyRate],
    stores: Mapping[str, int],
    hosts: Mapping[Host, int],
) -> dict[JobId, int]:
    """Select the new limits that may be handed out now: lower limits at once, higher limits after the lower ones.

    A copy with a higher limit waits until every copy with a lower limit, in the same store or on the same host, has
    confirmed the lower limit: no budget is exceeded meanwhile.
    """

    def shared(job: JobId) -> set[tuple[str, str]]:
        copy = copies[job]
        in_store = {("store", copy.store)} if stores.get(copy.store) else set()
        return in_store | ({("host", str(copy.host))} if hosts.get(copy.host) else set())

    late = [job for job, had in has.items() if (found.get(job, had.limit) or ANY) < (had.felt or ANY)]
    awaited = {budget for job in late for budget in shared(job)}
    return {
        job: limit
        for job, limit in found.items()
        if (limit or ANY) <= (has[job].limit or ANY) or not awaited & shared(job)
    }


# --- by store, by host --------------------------------------------------------------------------------


def _host_of_copy(copy: CopyRate) -> str:
    return copy.host


def _store_of_copy(copy: CopyRate) -> str:
    return copy.store


def _at_most(wants: Mapping[JobId, int], given: Mapping[JobId, int]) -> dict[JobId, int]:
    """Cap every want at the limit given for another reason."""
    return {job: min(n, given.get(job, ANY)) for job, n in wants.items()}


def _divide_budgets(
    how: Divide, copies: Mapping[JobId, CopyRate], wants: Mapping[JobId, int], budgets: Mapping[str, int], of: Of
) -> dict[JobId, int]:
    """Divide every budget among its copies; copies without a budget are left out."""
    groups: dict[str, dict[JobId, int]] = {}
    for job, copy in copies.items():
        if budgets.get(of(copy)):
            groups.setdefault(of(copy), {})[job] = wants[job]
    return {job: n for name, group in groups.items() for job, n in how(budgets[name], group).items()}
