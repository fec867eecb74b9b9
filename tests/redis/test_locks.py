"""Locks by identity: two jobs of one host never write what the other one reads or writes, whole or in part."""

from __future__ import annotations

import pytest
from puppets import ALPHA, RUN, spec

from blockjobs.model.barriers import Step
from blockjobs.registry import keys
from blockjobs.registry.answers import Answer

DISK, FIRST, SECOND, OTHER = "disk", "first\n^disk", "second\n^disk", "other"


@pytest.mark.parametrize(
    ("one", "other", "holder"),
    [
        ({"reads": DISK}, {"reads": FIRST}, ""),
        ({"reads": FIRST}, {"reads": FIRST}, ""),
        ({"writes": FIRST}, {"writes": SECOND}, ""),
        ({"writes": FIRST}, {"reads": SECOND}, ""),
        ({"reads": FIRST, "writes": SECOND}, {"writes": OTHER}, ""),
        ({"writes": DISK}, {"writes": DISK}, "job 'a'"),
        ({"writes": DISK}, {"reads": DISK}, "job 'a'"),
        ({"reads": DISK}, {"writes": DISK}, "a reader"),
        ({"writes": DISK}, {"reads": FIRST}, "job 'a'"),
        ({"writes": DISK}, {"writes": FIRST}, "job 'a'"),
        ({"reads": DISK}, {"writes": FIRST}, "a reader"),
        ({"reads": FIRST}, {"writes": DISK}, "a reader"),
        ({"writes": FIRST}, {"writes": DISK}, "a writer of a part"),
        ({"writes": FIRST}, {"reads": DISK}, "a writer of a part"),
    ],
    ids=lambda value: "-".join(value.values()).replace("\n", "-") if isinstance(value, dict) else value or "both",
)
def test_whole_and_part_meet_and_two_parts_do_not(fleet, one, other, holder):
    first, second = spec("a"), spec("x", run="other-20261122T000000Z")
    fleet.submit(first)
    txn = fleet.submit(second)
    host = fleet.host(ALPHA).answers
    host.answer(RUN, Step.OPEN, [Answer(first.id, **one)])
    host.answer(txn, Step.OPEN, [Answer(second.id, **other)])
    said = fleet.registry.views.job("x").error
    assert holder in said if holder else not said
    for each, job in ((RUN, "a"), (txn, "x")):
        if not fleet.registry.views.job(job).error:
            fleet.registry.verbs.cancel(job)
        fleet.walk(each)
    assert fleet.client.hgetall(keys.locks(ALPHA)) == {}


def test_a_volume_is_in_use_until_the_last_of_its_readers_has_ended(fleet):
    host = fleet.host(ALPHA).answers
    reading = [fleet.submit(spec(name, run=f"{name}-20261122T000000Z")) for name in ("a", "b")]
    for name, txn in zip("ab", reading, strict=True):
        host.answer(txn, Step.OPEN, [Answer(spec(name).id, reads=FIRST)])
    fleet.registry.verbs.cancel("a")
    fleet.walk(reading[0])
    writing = fleet.submit(spec("x", run="other-20261122T000000Z"))
    host.answer(writing, Step.OPEN, [Answer(spec("x").id, writes=DISK)])
    assert "a reader" in fleet.registry.views.job("x").error


def test_a_file_is_in_use_as_long_as_anybody_reads_or_writes_what_lies_on_it(fleet):
    fleet.submit(spec("a"))
    answers = fleet.host(ALPHA).answers
    assert not answers.in_use("file", "none")
    answers.answer(RUN, Step.OPEN, [Answer(spec("a").id, writes="loop\n^file")])
    assert answers.in_use("file", "none")
