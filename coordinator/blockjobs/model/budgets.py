"""How a budget is divided: max-min fair among those who want some of it.  Pure: figures in, figures out.

Bytes per second, as whole numbers.  A limit of 0 is none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from blockjobs.model.ids import Host, JobId
from blockjobs.model.numbers import MOST

HUNGRY: Final = 0.9  # of its limit: who uses as much wants all that he can get
ROOM: Final = 1.25  # times what he uses: what somebody wants who is not hungry, so that he can grow
ANY: Final = MOST  # wants as much as there is
PAUSED: Final = 1 << 16  # bytes/s kept for a copy that is paused: enough to go on with, should nobody divide anew
K = TypeVar("K", bound=Hashable)


def share(budget: int, wants: Mapping[K, int]) -> dict[K, int]:
    """Nobody gets more than he wants, all together no more than the budget; nobody could get more but by taking it
    from one who has no more than he.  Who wants something gets something, as long as there is a byte for each.
    """
    given: dict[K, int] = {}
    left = max(0, budget)
    for at, (name, want) in enumerate(sorted(wants.items(), key=lambda item: item[1])):
        given[name] = max(0, min(want, left // (len(wants) - at)))
        left -= given[name]
    return given


def spread(budget: int, wants: Mapping[K, int], most: Mapping[K, int]) -> dict[K, int]:
    """The shares as limits: what nobody wants is divided evenly among those who could use it, what they could use at
    the most, so that whoever comes to want more can begin; and what is left then, among all.
    """
    given = dict.fromkeys(wants, 0)
    for up_to in ({name: max(1, n) for name, n in wants.items()}, most, dict.fromkeys(wants, ANY)):
        left = max(0, budget - sum(given.values()))
        more = share(left, {name: max(0, up_to[name] - n) for name, n in given.items()})
        given = {name: n + more[name] for name, n in given.items()}
    return {name: max(1, n) for name, n in given.items()}  # 0 would be no limit


@dataclass(frozen=True, slots=True)
class CopyRate:
    """One running copy: ``speed`` is its own limit, ``want`` what it would use."""

    host: Host
    job: JobId
    store: str
    speed: int = 0
    want: int = ANY
    paused: bool = False

    @property
    def most(self) -> int:
        """What it could use."""
        return min(self.speed or ANY, PAUSED if self.paused else ANY)


Of = Callable[[CopyRate], str]
Divide = Callable[[int, Mapping[JobId, int]], dict[JobId, int]]  # a budget, and what each of its copies wants


def want(used: float | None, limit: int) -> int:
    """What a copy would use that uses so much under such a limit (None: nobody knows yet)."""
    if used is None or not limit or used >= HUNGRY * limit:
        return ANY
    return max(1, int(ROOM * used))


def limits(copies: Mapping[JobId, CopyRate], stores: Mapping[str, int], hosts: Mapping[Host, int]) -> dict[JobId, int]:
    """The limit of each copy, 0 where there is none: the least of its own, its share of its store, and of its host.

    What a host's limit keeps a copy from using is left to the others of its store, and the other way round.
    """
    most = {job: copy.most for job, copy in copies.items()}
    wants = {job: min(copy.want, most[job]) for job, copy in copies.items()}
    by_name = {str(host): n for host, n in hosts.items()}
    from_store = _at_most(wants, _divide(share, copies, wants, by_name, _host))
    from_host = _at_most(wants, _divide(share, copies, from_store, stores, _store))
    by_host = _divide(partial(spread, most=most), copies, from_host, by_name, _host)
    by_store = _divide(partial(spread, most=_at_most(most, by_host)), copies, from_store, stores, _store)
    found = {}
    for job, copy in copies.items():
        given = [n for n in (by_host.get(job), by_store.get(job)) if n is not None]
        found[job] = min([*given, copy.speed or ANY]) if given else 0
    return found


@dataclass(frozen=True, slots=True)
class Has:
    """What a copy was handed last, and what it may move as far as it knows."""

    limit: int
    felt: int

    @property
    def at_most(self) -> int:
        """What it may move until it is known to have heard more; ``ANY``: without a limit."""
        return max(self.limit or ANY, self.felt or ANY)


def timely(
    found: Mapping[JobId, int], has: Mapping[JobId, Has], copies: Mapping[JobId, CopyRate],
    stores: Mapping[str, int], hosts: Mapping[Host, int],
) -> dict[JobId, int]:  # fmt: skip
    """Of new limits those that may be handed out by now: a lower one always, a higher one behind all lower ones.

    Whoever is to have more waits until everybody who is to have less, in the same store or on the same host, has heard
    of it: no budget is exceeded meanwhile.
    """

    def shared(job: JobId) -> set[tuple[str, str]]:
        copy = copies[job]
        in_store = {("store", copy.store)} if stores.get(copy.store) else set()
        return in_store | ({("host", str(copy.host))} if hosts.get(copy.host) else set())

    late = [job for job, had in has.items() if (found.get(job, had.limit) or ANY) < (had.felt or ANY)]
    awaited = {budget for job in late for budget in shared(job)}
    return {
        job: limit for job, limit in found.items()
        if (limit or ANY) <= (has[job].limit or ANY) or not awaited & shared(job)
    }  # fmt: skip


# --- by store, by host --------------------------------------------------------------------------------


def _host(copy: CopyRate) -> str:
    return copy.host


def _store(copy: CopyRate) -> str:
    return copy.store


def _at_most(wants: Mapping[JobId, int], given: Mapping[JobId, int]) -> dict[JobId, int]:
    """What one cannot use for another reason, it does not want."""
    return {job: min(n, given.get(job, ANY)) for job, n in wants.items()}


def _divide(
    how: Divide, copies: Mapping[JobId, CopyRate], wants: Mapping[JobId, int], budgets: Mapping[str, int], of: Of
) -> dict[JobId, int]:
    """Divide each budget among its copies; those of no budget are left out."""
    groups: dict[str, dict[JobId, int]] = {}
    for job, copy in copies.items():
        if budgets.get(of(copy)):
            groups.setdefault(of(copy), {})[job] = wants[job]
    return {job: n for name, group in groups.items() for job, n in how(budgets[name], group).items()}
