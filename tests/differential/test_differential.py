"""The same QMP stories on qemu-storage-daemon and on ours: what is said and what happens is the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import stages
from differences import DIFFERENCES, excused
from normal import normal_reply, transcript
from playbook import Story, play
from stories import STORIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "qmp-differences.md"


async def told(story: Story, *where: stages.Stage) -> list[list[str]]:
    """What is seen of a story on each stage, all played at once."""
    players = await asyncio.gather(
        *(play(story, stage.socket, stage.images / story.name, normal_reply) for stage in where)
    )
    return [transcript(player, ordered=story.ordered).lines() for player in players]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_the_original_and_ours_tell_the_same_story(
    story: Story, their_stage: stages.Stage, our_stage: stages.Stage
) -> None:
    mine, theirs = asyncio.run(told(story, our_stage, their_stage))
    assert excused(mine, story.differs) == excused(theirs, story.differs)
    for name in story.differs:
        others = tuple(other for other in story.differs if other != name)
        assert excused(mine, others) != excused(theirs, others), f"{name} needs no excuse here any more"


def test_every_difference_that_stays_is_documented_and_met() -> None:
    headings = [line.removeprefix("## ") for line in DOCUMENT.read_text().splitlines() if line.startswith("## ")]
    assert set(DIFFERENCES) <= set(headings)
    assert set(DIFFERENCES) == {name for story in STORIES for name in story.differs}


def test_there_are_stories_enough_and_no_two_of_one_name() -> None:
    assert len({story.name for story in STORIES}) == len(STORIES) >= 25
