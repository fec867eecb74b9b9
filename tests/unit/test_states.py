"""The tables are QEMU's, bit for bit, written out here a second time from its documentation."""

from __future__ import annotations

import pytest

from blockjobs.model.states import (
    ACCEPTS,
    MOVES,
    STARTED,
    TERMINAL,
    Status,
    Verb,
    statuses_accepting,
    statuses_leading_to,
)

STATUSES = [
    "undefined", "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting",
    "concluded", "null",
]  # fmt: skip

# QEMU's JobSTT: rows from, columns to, in the order above.
JOB_STT = {
    "undefined": "01000000000",
    "created":   "00100000101",
    "running":   "00011010100",
    "paused":    "00100000000",
    "ready":     "00000110100",
    "standby":   "00001000000",
    "waiting":   "00000001100",
    "pending":   "00000000110",
    "aborting":  "00000000110",
    "concluded": "00000000001",
    "null":      "00000000000",
}  # fmt: skip

# QEMU's JobVerbTable: which status, in the same order, accepts a verb.
JOB_VERB_TABLE = {
    "cancel":    "01111111000",
    "pause":     "01111100000",
    "resume":    "01111100000",
    "set-speed": "01111100000",
    "complete":  "00001100000",
    "finalize":  "00000001000",
    "dismiss":   "00000000010",
    "change":    "01111100000",
}  # fmt: skip


def test_the_words_are_qemus():
    assert [str(status) for status in Status] == STATUSES
    assert {str(verb) for verb in Verb} == set(JOB_VERB_TABLE)


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_may_be_followed_by_what_qemu_allows(status):
    row = "".join(str(int(Status(to) in MOVES[Status(status)])) for to in STATUSES)
    assert row == JOB_STT[status]


@pytest.mark.parametrize("verb", JOB_VERB_TABLE)
def test_a_verb_is_accepted_where_qemu_accepts_it(verb):
    row = "".join(str(int(Status(status) in ACCEPTS[Verb(verb)])) for status in STATUSES)
    assert row == JOB_VERB_TABLE[verb]


def test_the_tables_have_a_row_for_everything():
    assert set(MOVES) == set(Status)
    assert set(ACCEPTS) == set(Verb)


@pytest.mark.parametrize("to", Status)
def test_sources_is_the_table_read_by_columns(to):
    column = STATUSES.index(to)
    assert statuses_leading_to(to) == [status for status in STATUSES if JOB_STT[status][column] == "1"]


@pytest.mark.parametrize("verb", Verb)
def test_accepting_is_a_row_of_the_verbs(verb):
    assert set(statuses_accepting(verb)) == ACCEPTS[verb]


def reachable(status, *, without=frozenset()):
    seen, todo = set(), [status]
    while todo:
        at = todo.pop()
        if at not in seen:
            seen.add(at)
            todo += MOVES[at] - without
    return seen


def test_every_life_ends_and_none_begins_again():
    for status in Status:
        assert Status.NULL in reachable(status)
    assert all(Status.UNDEFINED not in moves for moves in MOVES.values())
    assert reachable(Status.CONCLUDED) == TERMINAL


def test_nothing_is_concluded_but_by_way_of_pending_or_aborting():
    assert Status.CONCLUDED not in reachable(Status.RUNNING, without=frozenset({Status.PENDING, Status.ABORTING}))


def test_a_paused_job_can_only_go_back_to_what_it_was():
    assert MOVES[Status.PAUSED] == {Status.RUNNING}
    assert MOVES[Status.STANDBY] == {Status.READY}
    assert {Status.PAUSED, Status.STANDBY} <= STARTED
