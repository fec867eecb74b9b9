"""The state of runs and jobs: as JSON for programs, a run as one line, and the conditions that need a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blockjobs.cli.phrases import counted_noun, duration_text, time_of_day
from blockjobs.client.fleet import Fleet
from blockjobs.model.attention import Need
from blockjobs.model.ids import RunId
from blockjobs.model.policies import replaced_text
from blockjobs.registry.views import JobPlace, RunView


def runs_as_json(fleet: Fleet, runs: Sequence[RunId], places: Sequence[JobPlace] | None = None) -> dict[str, Any]:
    """The state for programs; ``places``: the jobs, or None for every job of the runs."""
    views = fleet.registry.views
    if places is None:
        places = [place for run in runs for place in views.places(run)]
    transactions = (views.transaction(txn) for txn in dict.fromkeys(place.transaction for place in places))
    return {
        "runs": [run.to_json() for run in views.runs_of(runs)],
        "transactions": [txn.to_json() for txn in transactions if txn is not None],
        "jobs": [job.to_json() for job in views.jobs(places)],
        "holding": [each.to_json() for each in fleet.holding()],
        "unreadable": fleet.registry.odd.found(),
    }


def needs_of_run(fleet: Fleet, run_id: RunId) -> list[Need]:
    """The conditions of a run that need a person."""
    return fleet.registry.attention.needs(run_id, fleet.registry.attention.thresholds())


def run_heading(run: RunView, now: float) -> str:
    """A run as one line."""
    over = run.jobs - run.open
    began = run.published / 1000
    if run.ended:
        state = f"{run.outcome} at {time_of_day(run.ended / 1000, now)} after {duration_text(run.ended / 1000 - began)}"
        state += f": {replaced_text(run.replaced)}" * bool(run.replaced)
    elif run.replaced:
        state = f"ends as skipped: {replaced_text(run.replaced)}"
    elif run.queued:
        state = f"queued behind {run.queued} since {time_of_day(began, now)} ({duration_text(now - began)})"
    else:
        state = f"running since {time_of_day(began, now)} ({duration_text(now - began)}), {over} of {run.jobs} over"
    bad = [f"{run.failed} failed"] * bool(run.failed) + [f"{run.cancelled} cancelled"] * bool(run.cancelled)
    bad += [f"{run.skipped} skipped"] * bool(run.skipped)
    if run.fields.deadline and not run.ended:
        bad.append(f"to end by {time_of_day(began + run.fields.deadline, now)}")
    return ", ".join([f"{run.id}: {counted_noun(run.jobs, 'job')}, {state}", *bad])
