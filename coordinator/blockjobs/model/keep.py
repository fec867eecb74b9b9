"""Which backups a rule keeps: grandfather, father and son, by days, ISO weeks and months of UTC.

Pure.  Each rule is asked by itself: a backup that any of them keeps stays.  Periods without a backup do not count.

Clocks may be wrong, decisions are numbered: which of two backups is the newer one is told by the number of the decision
that committed it.  A time that lies before that of an earlier backup counts as that one; a time beyond now counts for
no period, and keeps its backup until it has come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

NEWEST: Final = "newest"  # why the last good one stays, whatever the rules say
NO_RULE: Final = "no rule"
HELD: Final = "found by a rescan"  # why a backup stays that a rescan found, until `prune` of its name was confirmed
JUST_MADE: Final = "just made"  # why what a run has published stays, whatever the rules say when it ends
BEYOND_NOW: Final = "its time lies beyond now"


@dataclass(frozen=True, slots=True)
class Version:
    """What one run has to do with one job of its file.

    ``at``: seconds since the epoch.  ``number``: of the decision that committed it, 0 where an earlier version did.
    """

    run: str
    at: float
    committed: bool = True
    salvaged: bool = False  # parts of its source could not be read
    number: int = 0

    @property
    def order(self) -> tuple[int, float, str]:
        return self.number, self.at, self.run


@dataclass(frozen=True, slots=True)
class Retained:
    """Versions that stay, with every reason why, and those to be pruned, newest first."""

    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prune: tuple[str, ...] = ()


# rule -> the period that a time lies in; of each of the last N periods that have any, the newest backup stays
PERIODS: Final[dict[str, Callable[[datetime], str]]] = {
    "daily":   lambda at: f"{at:%Y-%m-%d}",
    "weekly":  lambda at: f"{at:%G-W%V}",
    "monthly": lambda at: f"{at:%Y-%m}",
}  # fmt: skip
RULES: Final = ("last", *PERIODS)


def judge(versions: Iterable[Version], keep: Mapping[str, int], now: float = math.inf) -> Retained:
    """What stays of the versions of one job, and what goes; ``now``: seconds since the epoch.

    The newest committed one always stays; one that never committed has nothing, and is in neither list.  A salvaged one
    takes no place of a rule from a whole one: those that are newer than the last whole one are judged among themselves,
    and the others go.
    """
    committed = [each for each in versions if each.committed]
    whole = [each for each in committed if not each.salvaged]
    if not any(keep.get(rule, 0) > 0 for rule in RULES):
        return _judge(committed, keep, now)
    newest = max((each.order for each in whole), default=(-1,))
    later = [each for each in committed if each.salvaged and each.order > newest]
    kept = {**_judge(whole, keep, now).reasons, **_judge(later, keep, now).reasons}
    gone = sorted((each for each in committed if each.run not in kept), key=lambda v: v.order, reverse=True)
    return Retained(kept, tuple(each.run for each in gone))


def _judge(versions: Iterable[Version], keep: Mapping[str, int], now: float) -> Retained:
    newest_first = sorted(versions, key=lambda v: v.order, reverse=True)
    reasons: dict[str, list[str]] = {each.run: [] for each in newest_first}
    if not any(keep.get(rule, 0) > 0 for rule in RULES):
        return Retained(dict.fromkeys(reasons, (NO_RULE,)))
    for each in newest_first[: max(0, keep.get("last", 0))]:
        reasons[each.run].append("last")
    times = _times(newest_first, now)
    for each in newest_first:
        if each.run not in times:
            reasons[each.run].append(BEYOND_NOW)
    for rule, period in PERIODS.items():
        seen: set[str] = set()
        for each in newest_first:
            if each.run not in times:
                continue
            name = period(datetime.fromtimestamp(times[each.run], UTC))
            if name not in seen and len(seen) < keep.get(rule, 0):
                seen.add(name)
                reasons[each.run].append(f"{rule} {name}")
    if newest_first and not reasons[newest_first[0].run]:
        reasons[newest_first[0].run].append(NEWEST)
    return Retained(
        {run: tuple(why) for run, why in reasons.items() if why}, tuple(run for run, why in reasons.items() if not why)
    )


def _times(newest_first: Sequence[Version], now: float) -> dict[str, float]:
    """The time that counts of each version, in seconds since the epoch; none of one that lies beyond now."""
    times: dict[str, float] = {}
    latest = -math.inf
    for each in reversed(newest_first):
        if each.at <= now:
            latest = times[each.run] = max(latest, each.at)
    return times


# --- over all jobs of a name --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTarget:
    """What a run has published for one of its jobs.  ``path`` on ``host``; ``layers``: the paths that it lies on."""

    run: str
    at: float
    job: str
    transaction: str  # its id
    group: str  # its name in the run file
    host: str
    path: str
    source: str
    base: str = ""  # the directory that was there before
    salvaged: bool = False  # parts of its source could not be read
    layers: tuple[str, ...] = ()
    number: int = 0  # of the decision that committed it; 0: an earlier version did
    held: bool = False  # a rescan found it, and nobody has said yet that the rules hold for it
    entry: str = ""  # under which the run's record has it
    seal: str = ""  # a digest of its manifest's text, where a rescan read it

    @property
    def order(self) -> tuple[int, float, str]:
        return self.number, self.at, self.run

    @property
    def series(self) -> tuple[str, str, str]:
        """What makes it a later version of another one: the same source by the same job of the same transaction."""
        return self.group, self.job.removeprefix(f"{self.run}."), self.source

    @property
    def place(self) -> tuple[str, str]:
        return self.host, self.path


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What becomes of the targets of a name.  ``kept`` has the reasons, ``prune`` is in order: what lies on others goes
    before them; ``replaced`` are gone already, by a later run that wrote the same path."""

    kept: Mapping[PublishedTarget, tuple[str, ...]] = field(default_factory=dict)
    prune: tuple[PublishedTarget, ...] = ()
    replaced: Mapping[PublishedTarget, str] = field(default_factory=dict)


def plan(
    targets: Iterable[PublishedTarget], keeps: Mapping[str, Mapping[str, int]], *,
    after: str | None = None, layers: frozenset[tuple[str, str]] = frozenset(), now: float = math.inf,
) -> PrunePlan:  # fmt: skip
    """What stays of everything that the runs of one name have published.

    ``keeps``: the rules, by name of the transaction.  ``after``: the run whose end it is that starts this: what it has
    published stays, and nothing of another series is pruned.  ``layers``: what targets of other names lie on.  A target
    on which one lies that stays, stays too.  What is held stays, and takes no place of a rule.
    """
    newest_first = sorted(targets, key=lambda target: target.order, reverse=True)
    only = {target.series for target in newest_first if target.run == after}
    holder: dict[tuple[str, str], str] = {}
    replaced = {t: holder[t.place] for t in newest_first if holder.setdefault(t.place, t.run) != t.run}
    series: dict[tuple[str, str, str], list[PublishedTarget]] = {}
    for target in newest_first:
        if target not in replaced and not target.held:
            series.setdefault(target.series, []).append(target)
    kept: dict[PublishedTarget, tuple[str, ...]] = {t: (HELD,) for t in newest_first if t.held and t not in replaced}
    for name, members in series.items():
        versions = [Version(t.run, t.at, salvaged=t.salvaged, number=t.number) for t in members]
        verdict = judge(versions, keeps.get(name[0], {}), now)
        kept |= {t: verdict.reasons[t.run] for t in members if t.run in verdict.reasons}
        kept |= {t: (JUST_MADE,) for t in members if t.run == after and t not in kept}
        if after is not None and name not in only:
            kept |= {t: ("not asked for",) for t in members if t not in kept}
    rest = [t for t in newest_first if t not in kept and t not in replaced]
    below = {(t.host, path) for t in kept for path in t.layers} | layers
    while chained := [t for t in rest if t.place in below]:
        kept |= dict.fromkeys(chained, ("another image lies on it",))
        below |= {(t.host, path) for t in chained for path in t.layers}
        rest = [t for t in rest if t not in kept]
    return PrunePlan(kept, tuple(rest), replaced)
