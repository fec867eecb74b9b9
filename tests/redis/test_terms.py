"""A hold may be somebody's, and may end by itself."""

from __future__ import annotations

import pytest
from puppets import RUN, Fleet, spec

from blockjobs.cli import main
from blockjobs.model.barriers import Step
from blockjobs.registry import keys
from blockjobs.registry.verbs import HoldTerms

pytestmark = pytest.mark.durable

JOB = spec("j")


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(JOB)
    fleet.walk(RUN, Step.RUN)
    return fleet


@pytest.fixture
def verbs(fleet):
    return fleet.registry.verbs


def later(fleet):
    fleet.client.blpop(["test:nobody-pushes-here"], timeout=0.01)


def test_a_hold_of_somebody_that_has_no_end_does_not_end_by_itself(fleet, verbs):
    verbs.pause("j", owner="ann")
    assert verbs.expire(fleet.registry.clock.now() + 10**12) == []
    assert list(fleet.registry.views.job("j").holds) == ["user"]


def test_a_hold_ends_when_its_time_is_over_and_not_before(fleet, verbs):
    verbs.pause("j", owner="ann", seconds=3600)
    verbs.pause("j", reason="move:beta", seconds=0.001)
    later(fleet)
    assert verbs.expire(fleet.registry.clock.now()) == [("j", "move:beta")]
    assert list(fleet.registry.views.job("j").holds) == ["user"]
    assert verbs.expire(fleet.registry.clock.now()) == []
    assert {name: terms.owner for name, terms in verbs.terms().items()} == {("j", "user"): "ann"}


def test_what_was_lifted_in_time_has_no_terms_any_more(fleet, verbs):
    verbs.pause("j", seconds=0.001)
    verbs.resume("j")
    assert verbs.terms() == {}
    verbs.pause("j")
    later(fleet)
    assert verbs.expire(fleet.registry.clock.now()) == []
    assert fleet.status("j") == "paused"


def test_the_hold_of_another_job_under_the_same_name_is_not_ended(fleet, verbs):
    verbs.pause("j", seconds=0.001)
    verbs.cancel("j")
    fleet.walk(RUN)
    later(fleet)
    verbs.dismiss("j")
    again = spec("j", run=RUN + "-2")
    fleet.submit(again)
    fleet.walk(again.transaction, Step.RUN)
    fleet.client.hset(keys.holds(again.host, again.id), "user", "an I/O error")
    assert verbs.expire(fleet.registry.clock.now()) == []
    assert verbs.terms() == {}
    assert list(fleet.registry.views.job("j").holds) == ["user"]


def test_the_terms_of_a_job_that_is_gone_are_forgotten(fleet, verbs):
    verbs.pause("j", owner="ann")
    verbs.cancel("j")
    fleet.walk(RUN)
    assert verbs.expire(fleet.registry.clock.now()) == []
    assert verbs.terms() == {}


def test_show_says_whose_a_hold_is_and_until_when(fleet, server, monkeypatch, capfd):
    monkeypatch.setenv("BLOCKJOBS_REDIS_URL", server.url)

    def run(*words):
        code = main.run_command_guarded(lambda: main.cli.main(list(words), standalone_mode=False))
        return code, capfd.readouterr().out

    assert run("pause", "j", "--for", "3600", "--cause", "a report runs") == (0, "j: paused\n")
    (terms,) = fleet.registry.verbs.terms().values()
    assert isinstance(terms, HoldTerms)
    code, out = run("show", "j")
    assert code == 0
    assert f": a report runs; by {terms.owner}; until " in out
