"""Cuts in the registry: one event each, how far those of a transaction lie apart, and no copy before all are there."""

from __future__ import annotations

import pytest
from puppets import ALPHA, BETA, RUN, SIZE, Fleet, spec

from blockjobs.cli.phrases import event_sentence
from blockjobs.model.barriers import Step
from blockjobs.model.cuts import Cut
from blockjobs.model.ids import TxnId
from blockjobs.registry.answers import Answer

JOBS = spec("a"), spec("b"), spec("c", host=BETA)
TXN = TxnId(RUN)


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(*JOBS)
    fleet.walk(TXN, Step.CUT)
    return fleet


def cut(begin, end, **more):
    return Cut(how="reflink", path="/srv/.x.cut", identity=("file", 1, 2, SIZE, 4, 5), begin=begin, end=end, **more)


def answer(fleet, host, **cuts):
    fleet.host(host).answers.answer(TXN, Step.CUT, [Answer(job, result=each.to_dict()) for job, each in cuts.items()])


def test_the_cuts_of_a_transaction_are_from_the_first_begin_to_the_last_end(fleet):
    answer(fleet, ALPHA, a=cut(1000.5, 1000.75), b=cut(1000.25, 1000.5, frozen=0.125))
    assert fleet.next(TXN).step is Step.CUT
    assert fleet.host(BETA).answers.skew(TXN) is None
    answer(fleet, BETA, c=cut(1001.0, 1001.0000005))
    fleet.walk(TXN, Step.RUN)
    assert fleet.host(BETA).answers.skew(TXN) == pytest.approx(0.750001, abs=1e-9)
    assert fleet.registry.views.transaction(TXN).skew == pytest.approx(0.750001, abs=1e-9)
    assert told(fleet, "TRANSACTION_CUT") == [{"begin": "1000.250000", "end": "1001.000001", "skew": "0.750001"}]
    assert told(fleet, "JOB_CUT")[1] == {
        "how": "reflink", "begin": "1000.250000", "end": "1000.500000", "frozen": "0.125000",
    }  # fmt: skip


def test_a_cut_within_another_one_that_was_answered_before_changes_nothing_of_the_whole(fleet):
    answer(fleet, ALPHA, a=cut(1000.0, 1003.0))
    answer(fleet, ALPHA, b=cut(1001.0, 1002.0))
    answer(fleet, BETA, c=cut(1001.0, 1002.0))
    fleet.walk(TXN, Step.RUN)
    assert fleet.host(BETA).answers.skew(TXN) == pytest.approx(3.0)


def test_cuts_of_images_that_qemu_writes_to_are_of_no_instant_and_have_no_skew(fleet):
    answer(fleet, ALPHA, a=cut(1000.5, 1000.75), b=cut(1000.25, 1000.5, consistency="crash"))
    answer(fleet, BETA, c=cut(1001.0, 1001.5, consistency="crash"))
    fleet.walk(TXN, Step.RUN)
    assert fleet.host(BETA).answers.skew(TXN) is None
    assert fleet.registry.views.transaction(TXN).skew is None
    assert [event.get("consistency") for event in told(fleet, "JOB_CUT")] == [None, "crash", "crash"]
    (whole,) = told(fleet, "TRANSACTION_CUT")
    assert whole == {"begin": "1000.250000", "end": "1001.500000", "consistency": "crash", "crash": "2"}
    (event,) = [event for event in fleet.history() if event.name == "TRANSACTION_CUT"]
    assert event_sentence(event).startswith(
        "warning: its sources are cut, but not at one instant: 2 images had a writer"
    )
    assert fleet.registry.views.job("b").to_json()["cut"]["consistency"] == "crash"
    assert "consistency" not in fleet.registry.views.job("a").to_json()["cut"]


def told(fleet, name):
    return [event.fields for event in fleet.history() if event.name == name]


def test_an_attempt_and_prepare_are_given_the_cut_and_readers_see_it(fleet):
    mine = cut(1000.5, 1000.75)
    answer(fleet, ALPHA, a=mine, b=cut(1.0, 2.0))
    answer(fleet, BETA, c=Cut(why="no reflink"))
    fleet.walk(TXN, Step.RUN)
    assert Cut.from_dict(fleet.claim(JOBS[0]).opened["cut"]) == mine
    assert Cut.from_dict(fleet.host(ALPHA).answers.members(TXN)[0].opened["cut"]) == mine
    assert fleet.registry.views.job("a").cut == mine
    assert fleet.registry.views.job("a").to_json()["cut"]["how"] == "reflink"
    assert fleet.registry.views.job("c").to_json()["cut"] == {"how": "none", "why": "no reflink"}


def test_the_cut_of_a_job_stays_to_its_end(fleet):
    mine = cut(1000.5, 1000.75)
    answer(fleet, ALPHA, a=mine, b=cut(1.0, 2.0))
    answer(fleet, BETA, c=Cut(why="no reflink"))
    assert fleet.record(JOBS[0])["len"] == str(SIZE)
    fleet.walk(TXN, Step.RUN)
    fleet.copy(*JOBS)
    fleet.walk(TXN)
    assert fleet.registry.views.job("a").cut == mine
    assert len(told(fleet, "JOB_CUT")) == 2


def test_a_cut_that_is_answered_twice_is_one(fleet):
    for _ in range(2):
        answer(fleet, ALPHA, a=cut(1000.5, 1000.75))
    answer(fleet, ALPHA, a=cut(5.0, 6.0))
    assert len(told(fleet, "JOB_CUT")) == 1
    assert fleet.registry.views.job("a").cut.begin == 1000.5


def test_where_nothing_is_cut_there_is_no_skew_and_no_event(fleet):
    fleet.walk(TXN, Step.RUN)
    assert told(fleet, "JOB_CUT") == told(fleet, "TRANSACTION_CUT") == []
    assert fleet.registry.views.transaction(TXN).skew is None
    assert set(fleet.registry.views.transaction(TXN).owing[ALPHA]) == {*map(str, Step), "failed"} - {"failed"}


def test_an_open_that_finds_nothing_to_cut_owes_no_cut_from_the_same_instant(client):
    fleet = Fleet(client)
    fleet.submit(*JOBS)
    nothing = Cut(why="no reflink").to_dict()
    fleet.host(ALPHA).answers.answer(TXN, Step.OPEN, [Answer("a", size=SIZE, uncut=nothing), Answer("b", size=SIZE)])
    owed = [(member.spec.id, member.passed) for member in fleet.host(ALPHA).answers.members(TXN)]
    assert owed == [("a", Step.CUT), ("b", Step.OPEN)]
    assert fleet.view(TXN).shares[ALPHA].owing[Step.CUT] == 1
    fleet.host(ALPHA).answers.answer(TXN, Step.OPEN, [Answer("a", size=SIZE, uncut=nothing)])  # again
    assert fleet.view(TXN).shares[ALPHA].owing[Step.CUT] == 1
    assert fleet.registry.views.job("a").to_json()["cut"] == {"how": "none", "why": "no reflink"}
