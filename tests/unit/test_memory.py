"""What others know of decisions, and what a registry knows itself: whether it may decide."""

from __future__ import annotations

import pytest

from blockjobs.model.ids import Host
from blockjobs.model.memory import DecisionsKnown, doubt_all, doubt_host, doubt_lost, doubt_unheard

A, B = Host("a"), Host("b")
HERE = DecisionsKnown("here", 5)


@pytest.mark.parametrize(
    ("claim", "doubt"),
    [
        (DecisionsKnown("", 0), ""),
        (DecisionsKnown("here", 5), ""),
        (DecisionsKnown("here", 4), ""),
        (DecisionsKnown("here", 6), "decision 6, this registry knows 5"),
        (DecisionsKnown("", 6), "decision 6, this registry knows 5"),
        (
            DecisionsKnown("there", 1),
            "registry there, this one is here: `blockjobs registry accept-loss --registry there 1`",
        ),
    ],
)
def test_nothing_is_decided_with_a_host_that_knows_more_or_another_registry(claim, doubt):
    said = doubt_host(A, claim, HERE)
    assert doubt in said
    assert bool(said) is bool(doubt)


@pytest.mark.parametrize(
    ("lost", "own", "doubt"),
    [
        ({}, 5, ""),
        ({}, 6, "accept-loss 6"),
        ({A: 9}, 5, ""),
        ({A: 7, B: 9}, 5, "accept-loss 9"),
    ],
)
def test_nothing_at_all_is_decided_where_two_hosts_or_the_finalizer_know_more(lost, own, doubt):
    said = doubt_all(lost, own, here=5)
    assert doubt in said
    assert bool(said) is bool(doubt)


def test_the_host_that_knows_most_is_named_and_those_that_were_not_heard_are():
    assert doubt_lost({}) == doubt_unheard([]) == ""
    assert "host b has carried out decision 9" in doubt_lost({A: 7, B: 9})
    assert "host a was not heard" in doubt_unheard([A])
    assert "hosts a, b were not heard" in doubt_unheard([B, A])
