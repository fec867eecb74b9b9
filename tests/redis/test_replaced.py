"""A run that waited for another one of its name, and in whose place a later one waits: every face says so."""

from __future__ import annotations

import pytest
from test_overlap import FIRST, SECOND, THIRD, plan

from blockjobs.cli.follow import Silent, outcome_lines
from blockjobs.cli.start import follow_submitted_run
from blockjobs.client.fleet import Fleet
from blockjobs.daemons.deadlines import Deadlines
from blockjobs.daemons.notifier import Notifier
from blockjobs.model import notices
from blockjobs.model.barriers import Step

pytestmark = pytest.mark.durable

WHY = f"replaced by run {THIRD}, which was started later"


@pytest.fixture
def going(fleet):
    """A run that copies."""
    fleet.registry.submit.submit(plan(FIRST))
    fleet.walk(FIRST, Step.RUN)
    return fleet


def replace_second(fleet):
    """A later run takes the place of the second one, which ends."""
    fleet.registry.submit.submit(plan(THIRD, on_overlap="queue"))
    Deadlines(fleet.registry).look(fleet.registry.clock.now())
    fleet.walk(SECOND)


@pytest.fixture
def skipped(going):
    notify = {"partial": ("https://one.example.com",)}
    going.registry.submit.submit(plan(SECOND, "one", "two", on_overlap="queue", notify=notify))
    replace_second(going)
    return going


def test_every_face_says_by_which_run_it_was_replaced(skipped, command):
    for words in (["wait", SECOND], ["status", SECOND], ["history", "nightly"], ["report", SECOND], ["events"]):
        code, out, _ = command(*words)
        assert code == (4 if words[0] == "wait" else 0), words
        assert WHY in out, words
        assert "skipped" in out, words
    assert f'"replaced-by": "{THIRD}"' in command("show", SECOND, "--json")[1]
    Notifier(skipped.registry, (), lambda: "").announce(SECOND)
    said = skipped.registry.notices.take(SECOND, 0, "me", lease=9).said
    assert (said["verdict"], said["exit-code"], said["replaced-by"]) == ("partial", 4, THIRD)
    assert "nightly skipped: 0 of 2" in notices.notice_title(said)
    assert WHY in notices.notice_text(said)


def test_whoever_follows_a_run_that_is_replaced_is_told_so(going, server):
    second = plan(SECOND, on_overlap="queue")

    def replace_it(_):
        if not going.registry.views.run(SECOND).replaced:
            replace_second(going)

    with Fleet(server.url) as here:
        seq = here.registry.events.last()
        here.registry.submit.submit(second)
        board = follow_submitted_run(here, second, seq, Silent(), each=replace_it)
        assert outcome_lines(board, SECOND) == [f"run {SECOND} skipped after 0 s: {WHY}"]
