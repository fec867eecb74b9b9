"""Retention of backups by rules: grandfather, father and son, by days, ISO weeks and months of UTC.

Pure.  The rules are independent: a backup kept by any rule stays.  Periods without a backup do not count.

Clocks may be wrong, but decisions are numbered: the newer of two backups is the backup with the higher number of its
commit decision.  A time before the time of an earlier backup counts as the time of the earlier backup.  A time in the
future counts for no period, and keeps its backup until then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

NEWEST: Final = "newest"  # why the last good backup stays under any rules
NO_RULE: Final = "no rule"
HELD: Final = "found by a rescan"  # why a backup found by a rescan stays until `prune` of its name was confirmed
JUST_MADE: Final = "just made"  # why the backup of a run stays when that run ends, under any rules
BEYOND_NOW: Final = "its time lies beyond now"


@dataclass(frozen=True, slots=True)
class Version:
    """One run's version of the backup of one job.

    ``at``: seconds since the epoch.  ``number``: the number of the commit decision, 0 from an earlier version of
    blockjobs.
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
    """The versions to keep, with the reasons by run, and the versions to prune, newest first."""

    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prune: tuple[str, ...] = ()


# rule -> the period of a time; the newest backup stays of each of the last N periods with a backup
PERIODS: Final[dict[str, Callable[[datetime], str]]] = {
    "daily":   lambda at: f"{at:%Y-%m-%d}",
    "weekly":  lambda at: f"{at:%G-W%V}",
    "monthly": lambda at: f"{at:%Y-%m}",
}  # fmt: skip
RULES: Final = ("last", *PERIODS)


def judge_versions(versions: Iterable[Version], keep: Mapping[str, int], now: float = math.inf) -> Retained:
    """Judge the versions of one job; ``now``: seconds since the epoch.

    The newest committed version always stays; a version without a commit has no files, and is in neither list.  A
    salvaged version never displaces a whole version from a rule: salvaged versions newer than the last whole version
    are judged separately, and older salvaged versions go.
    """
    committed = [each for each in versions if each.committed]
    whole = [each for each in committed if not each.salvaged]
    if not any(keep.get(rule, 0) > 0 for rule in RULES):
        return _apply_keep_rules(committed, keep, now)
    newest = max((each.order for each in whole), default=(-1,))
    later = [each for each in committed if each.salvaged and each.order > newest]
    kept = {**_apply_keep_rules(whole, keep, now).reasons, **_apply_keep_rules(later, keep, now).reasons}
    gone = sorted((each for each in committed if each.run not in kept), key=lambda v: v.order, reverse=True)
    return Retained(kept, tuple(each.run for each in gone))


def _apply_keep_rules(versions: Iterable[Version], keep: Mapping[str, int], now: float) -> Retained:
    newest_first = sorted(versions, key=lambda v: v.order, reverse=True)
    reasons: dict[str, list[str]] = {each.run: [] for each in newest_first}
    if not any(keep.get(rule, 0) > 0 for rule in RULES):
        return Retained(dict.fromkeys(reasons, (NO_RULE,)))
    for each in newest_first[: max(0, keep.get("last", 0))]:
        reasons[each.run].append("last")
    times = _effective_times(newest_first, now)
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


def _effective_times(newest_first: Sequence[Version], now: float) -> dict[str, float]:
    """The effective time of each version, in seconds since the epoch; versions beyond now are left out."""
    times: dict[str, float] = {}
    latest = -math.inf
    for each in reversed(newest_first):
        if each.at <= now:
            latest = times[each.run] = max(latest, each.at)
    return times


# --- over all jobs of a name --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTarget:
    """A target published by a run for a job.

    ``path`` on ``host``; ``layers``: the paths of the layers below the target.
    """

    run: str
    at: float
    job: str
    transaction: str  # its id
    group: str  # its name in the run file
    host: str
    path: str
    source: str
    base: str = ""  # the directory that existed before the run
    salvaged: bool = False  # parts of its source could not be read
    layers: tuple[str, ...] = ()
    number: int = 0  # number of the commit decision; 0 from an earlier version of blockjobs
    held: bool = False  # found by a rescan, and the rules not confirmed for it yet
    entry: str = ""  # its key in the record of the run
    seal: str = ""  # a digest of its manifest's text, if read by a rescan

    @property
    def order(self) -> tuple[int, float, str]:
        return self.number, self.at, self.run

    @property
    def series(self) -> tuple[str, str, str]:
        """The series of the backup: versions of the same source by the same job of the same transaction."""
        return self.group, self.job.removeprefix(f"{self.run}."), self.source

    @property
    def place(self) -> tuple[str, str]:
        return self.host, self.path


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """The verdict on the targets of a name.

    ``kept`` has the reasons.  ``prune`` is in order of removal: a target goes before the layers below it.  ``replaced``
    targets are gone already: a later run wrote the same path.
    """

    kept: Mapping[PublishedTarget, tuple[str, ...]] = field(default_factory=dict)
    prune: tuple[PublishedTarget, ...] = ()
    replaced: Mapping[PublishedTarget, str] = field(default_factory=dict)


def plan_pruning(
    targets: Iterable[PublishedTarget],
    keeps: Mapping[str, Mapping[str, int]],
    *,
    after: str | None = None,
    layers: frozenset[tuple[str, str]] = frozenset(),
    now: float = math.inf,
) -> PrunePlan:
    """Judge every target published by the runs of one name.

    ``keeps``: the rules, by name of the transaction.  ``after``: the run whose end triggers this plan; targets of this
    run stay, and other series are not pruned.  ``layers``: the layers below targets of other names.  A layer below a
    kept target is kept too.  A held target stays, and takes no place in a rule.
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
        verdict = judge_versions(versions, keeps.get(name[0], {}), now)
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
