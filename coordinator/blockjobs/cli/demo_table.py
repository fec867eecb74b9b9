"""The table at the end of the demo, computed from the event stream alone.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from blockjobs.model.ids import RunId
from blockjobs.model.numbers import size_text
from blockjobs.registry.events import Event

TITLES = ["RUN", "JOBS", "BYTES", "SECONDS", "DECISION", "PAUSED WITHIN"]


@dataclass(slots=True)
class Story:
    """The figures of a run, by the run's events."""

    run: RunId
    jobs: int = 0
    bytes: int = 0  # lengths of the volumes whose job completed
    began: float = 0.0
    ended: float = 0.0
    decision: str = ""
    latencies: list[float] = field(default_factory=list)  # seconds from a pause to the job standing still
    asked: dict[str, float] = field(default_factory=dict)  # pauses not answered yet


def run_stories(events: Iterable[Event]) -> list[Story]:
    """The runs of the events, in the order of the starts."""
    found: dict[str, Story] = {}
    for event in events:
        if event.run:
            _add_to_story(found.setdefault(event.run, Story(RunId(event.run))), event)
    return list(found.values())


def _add_to_story(story: Story, event: Event) -> None:
    f = event.fields
    match event.name:
        case "RUN_PUBLISHED":
            story.jobs, story.began = int(f["jobs"]), event.at
        case "RUN_ENDED":
            story.ended = event.at
        case "TRANSACTION_DECIDED":
            story.decision = f["decision"]
        case "BLOCK_JOB_COMPLETED" if "error" not in f:
            story.bytes += int(f["len"])
        case "JOB_HELD":
            story.asked[event.id] = event.at
        case "JOB_STATUS_CHANGE" if f["status"] == "paused" and event.id in story.asked:
            story.latencies.append(event.at - story.asked.pop(event.id))


def story_rows(told: Iterable[Story]) -> Iterator[list[str]]:
    yield TITLES
    for story in told:
        worst = f"{max(story.latencies) * 1000:.0f} ms" if story.latencies else "-"
        seconds = f"{story.ended - story.began:.1f}" if story.ended else "-"
        yield [story.run, str(story.jobs), size_text(story.bytes), seconds, story.decision or "-", worst]
