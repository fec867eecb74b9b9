"""``history``: the past of every run of a name, with figures, for jobs on record and dismissed jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import aligned_lines, print_json
from blockjobs.cli.phrases import counted_noun, duration_text, name_within_run, time_of_day
from blockjobs.client.fleet import Fleet
from blockjobs.model import keep
from blockjobs.model.errors import Refused
from blockjobs.model.keep import PublishedTarget
from blockjobs.model.numbers import size_text
from blockjobs.model.policies import replaced_text
from blockjobs.registry.history import keep_rules
from blockjobs.registry.views import RunView

SHOWN = 20  # runs, unless asked for more


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A run and the remaining backups: number of targets, rules that keep them, targets that could not be pruned."""

    run: RunView
    there: int  # targets
    kept: tuple[str, ...]
    left: dict[str, str]

    @property
    def word(self) -> str:
        """The outcome of the run, or the state before the end."""
        run = self.run
        return run.outcome if run.ended or run.replaced else "queued" if run.queued else "running"

    def to_json(self) -> dict[str, Any]:
        run = self.run
        return {
            **run.to_json(), "outcome": self.word, "why": run.why or None, "retries": run.retries or None,
            "elapsed": round(run.elapsed, 3), "committed": run.jobs - run.open - run.failed - run.cancelled,
            "bytes": {name: run.sums.get(name, 0) for name in ("read", "written", "zero", "skipped")},
            "len": run.sums.get("len", 0), "attempts": run.sums.get("attempts", 0), "rate": round(run.rate),
            "targets": self.there, "kept": list(self.kept), "pruned": run.pruned,
            "pruned-at": run.pruned_at / 1000 if run.pruned_at else None, "left": self.left,
        }  # fmt: skip


@click.command()
@click.argument("name", required=False)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=SHOWN,
    show_default=True,
    metavar="N",
    help="Number of runs at most; 0: all.",
)
@click.option("--json", "json", is_flag=True, help="Print it as JSON; docs/history.md has the fields.")
@redis_option
def history(name: str | None, limit: int, json: bool, url: str | None) -> None:
    """Show all runs of a NAME, or of all names, newest first.

    For each run: start and duration, outcomes of the jobs, bytes read and written with the speed, and the standing of
    the targets: the rule of `keep` that keeps a target, or that the target was pruned.

    \b
    Example:
      blockjobs history nightly
      blockjobs history nightly --limit 0 --json
    """
    with Fleet(url) as fleet:
        found = history_of_name(fleet, name or "", limit)
        if name and not found:
            raise Refused(f"no run is named '{name}'; `blockjobs history` lists them all")
        if json:
            print_json([each.to_json() for each in found])
        elif found:
            click.echo("\n".join(history_table(found, time.time())))
        else:
            click.echo("no runs yet: blockjobs run FILE")


def history_of_name(fleet: Fleet, name: str, limit: int) -> list[HistoryEntry]:
    """Runs of a name (``""``: of every name), newest first."""
    runs = [run for run in fleet.runs() if not name or run.name == name]
    return known_history(fleet, runs[: limit or None], runs)


def past_of(fleet: Fleet, run: RunView) -> HistoryEntry:
    """The history entry of a run."""
    (found,) = known_history(fleet, [run], fleet.runs())
    return found


def known_history(fleet: Fleet, shown: Sequence[RunView], known: Sequence[RunView]) -> list[HistoryEntry]:
    """History entries of some known runs; the rules that keep a target consider every run of the same name."""
    reasons: dict[str, list[str]] = {}
    there: dict[str, int] = {}
    for each in dict.fromkeys(run.name for run in shown):
        for target, why in remaining_targets(fleet, [run for run in known if run.name == each]).items():
            reasons.setdefault(target.run, []).extend(why)
            there[target.run] = there.get(target.run, 0) + 1
    left = fleet.registry.history.left(run.id for run in shown)
    return [
        HistoryEntry(run, there.get(run.id, 0), tuple(dict.fromkeys(reasons.get(run.id, ()))), left[run.id])
        for run in shown
    ]


def remaining_targets(fleet: Fleet, siblings: Sequence[RunView]) -> dict[PublishedTarget, tuple[str, ...]]:
    """The remaining targets of the runs of a name, with the rules for keeping; without a rule: to be pruned."""
    targets = fleet.registry.history.targets(siblings)
    fate = keep.plan_pruning(targets, keep_rules(siblings, targets))
    return {target: fate.kept.get(target, ()) for target in targets if target not in fate.replaced}


def history_table(found: Sequence[HistoryEntry], now: float) -> list[str]:
    """A line per run, and further lines for remarks on the run."""
    rows = [["RUN", "BEGAN", "TOOK", "JOBS", "READ", "WRITTEN", "RATE", "OUTCOME", "TARGETS"]]
    rows += [entry_cells(each, now) for each in found]
    lines = list(aligned_lines(rows))
    told = [lines[0]]
    for each, line in zip(found, lines[1:], strict=True):
        told += [line, *(f"    {text}" for text in run_remarks(each))]
    return told


def entry_cells(each: HistoryEntry, now: float) -> list[str]:
    run = each.run
    over = bool(run.ended)
    return [
        run.id,
        time_of_day(run.published / 1000, now),
        duration_text(run.elapsed) if over else duration_text(now - run.published / 1000),
        job_counts_text(run),
        size_text(run.sums.get("read", 0)),
        size_text(run.sums.get("written", 0)),
        f"{size_text(run.rate)}/s" if run.rate else "",
        each.word,
        targets_word(each),
    ]


def job_counts_text(run: RunView) -> str:
    """``8 ok``, ``5 ok, 2 failed, 1 cancelled``."""
    good = run.jobs - run.open - run.failed - run.cancelled
    kinds = [
        (good - run.salvaged, "ok"), (run.salvaged, "salvaged"), (run.failed, "failed"), (run.cancelled, "cancelled"),
        (run.skipped, "skipped"), (run.open, "open"),
    ]  # fmt: skip
    return ", ".join(f"{number} {word}" for number, word in kinds if number) or "none"


def targets_word(each: HistoryEntry) -> str:
    """``kept: last, daily 2026-11-22``; ``pruned``; ``2 of 3 pruned``."""
    run = each.run
    if run.pruned and not each.there:
        return "pruned"
    rules = [why for why in each.kept if why != keep.NO_RULE]
    word = f"kept: {', '.join(rules)}" if rules else "kept" if each.kept else "to be pruned" if each.there else ""
    return f"{run.pruned} of {run.pruned + each.there} pruned, {word}" if run.pruned else word


def run_remarks(each: HistoryEntry) -> list[str]:
    run = each.run
    told = [f"retries {run.retries}"] * bool(run.retries)
    told += [counted_noun(run.retried, "further try", "further tries")] * bool(run.retried)
    told += [run.why.replace(f"{run.id}.", "", 1)] * bool(run.why)
    if run.replaced:
        told.append(replaced_text(run.replaced))
    elif run.ended and not run.why and run.cancelled:
        told.append("cancelled")
    told += [f"{name_within_run(job, run.id)} was not pruned: {why}" for job, why in list(each.left.items())[:3]]
    return told + [f"... and {len(each.left) - 3} more"] * (len(each.left) > 3)
