"""A budget among those who want some of it: a table, and what holds for every table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockjobs.model.budgets import (
    ANY,
    PAUSED,
    CopyRate,
    Has,
    copy_limits,
    demanded_rate,
    divide_evenly,
    spread_budget,
    timely_limits,
)
from blockjobs.model.ids import Host, JobId
from blockjobs.model.numbers import MOST

CASES = {
    "nobody": (60, {}, {}),
    "alone": (60, {"a": ANY}, {"a": 60}),
    "alone-and-modest": (60, {"a": 10}, {"a": 10}),
    "even": (60, {"a": ANY, "b": ANY, "c": ANY}, {"a": 20, "b": 20, "c": 20}),
    "what-one-leaves-is-the-others'": (60, {"a": 10, "b": ANY, "c": ANY}, {"a": 10, "b": 25, "c": 25}),
    "as-it-comes-up": (60, {"a": 10, "b": 22, "c": ANY}, {"a": 10, "b": 22, "c": 28}),
    "all-content": (60, {"a": 10, "b": 10}, {"a": 10, "b": 10}),
    "a-rest-that-cannot-be-divided": (62, {"a": ANY, "b": ANY, "c": ANY}, {"a": 20, "b": 21, "c": 21}),
    "nothing-wanted": (60, {"a": 0, "b": ANY}, {"a": 0, "b": 60}),
    "less-than-a-byte-each": (1, {"a": ANY, "b": ANY}, {"a": 0, "b": 1}),
}
FIGURE = st.integers(0, 1 << 40) | st.integers(0, MOST)  # bytes a second
WANTS = st.dictionaries(st.integers(0, 50), FIGURE, max_size=30)
BUDGET = FIGURE


@pytest.mark.parametrize(("budget", "wants", "shares"), CASES.values(), ids=CASES)
def test_a_budget_is_divided_so(budget, wants, shares):
    assert divide_evenly(budget, wants) == shares


@given(BUDGET, WANTS)
def test_the_budget_is_never_exceeded_and_nobody_gets_more_than_he_wants(budget, wants):
    shares = divide_evenly(budget, wants)
    assert sum(shares.values()) <= budget
    assert all(0 <= shares[name] <= wanted for name, wanted in wants.items())


@given(BUDGET, WANTS)
def test_nothing_is_left_while_somebody_wants_more(budget, wants):
    assert sum(divide_evenly(budget, wants).values()) == min(budget, sum(wants.values()))


@given(BUDGET, WANTS)
def test_whoever_gets_less_than_he_wants_gets_as_much_as_anybody(budget, wants):
    shares = divide_evenly(budget, wants)
    for name, given_ in shares.items():
        if given_ < wants[name]:
            assert given_ >= max(shares.values()) - 1, "but for a byte that cannot be divided"


@pytest.mark.parametrize("budget", [1 << 53, (1 << 53) + 1, 10**17, MOST - 1, MOST])
def test_one_copy_may_use_all_of_a_budget_of_any_size(budget):
    copies = {JobId("a"): CopyRate(Host("h"), JobId("a"), "s")}
    assert copy_limits(copies, {"s": budget}, {Host("h"): MOST}) == {"a": budget}


@given(BUDGET, WANTS)
def test_nobody_starves(budget, wants):
    shares = divide_evenly(budget, wants)
    if budget >= len(wants):
        assert all(shares[name] > 0 for name, wanted in wants.items() if wanted)


@given(st.integers(1, 1 << 40), WANTS, BUDGET)
def test_as_limits_the_shares_are_never_none_and_use_up_the_budget(budget, wants, most):
    found = spread_budget(budget, wants, {name: wanted + most for name, wanted in wants.items()})
    assert all(limit >= 1 for limit in found.values())
    if budget >= len(wants):
        assert budget - len(wants) < sum(found.values()) <= budget or not wants


def copies(*rows):
    return {JobId(job): CopyRate(Host(host), JobId(job), *row) for job, host, *row in rows}


LIMITS = {
    "none": (copies(("a", "h", "", 0, ANY)), {}, {}, {"a": 0}),
    "a-store-without-a-limit": (copies(("a", "h", "nas", 0, ANY)), {"nas": 0}, {}, {"a": 0}),
    "a-store": (copies(("a", "h", "nas", 0, ANY), ("b", "i", "nas", 0, ANY)), {"nas": 60}, {}, {"a": 30, "b": 30}),
    "a-host": (copies(("a", "h", "", 0, ANY), ("b", "h", "nas", 0, ANY)), {}, {"h": 60}, {"a": 30, "b": 30}),
    "not-of-this-host": (copies(("a", "h", "", 0, ANY), ("b", "i", "", 0, ANY)), {}, {"h": 60}, {"a": 60, "b": 0}),
    "its-own-is-lower": (copies(("a", "h", "n", 10, ANY), ("b", "i", "n", 0, ANY)), {"n": 60}, {}, {"a": 10, "b": 50}),
    "what-a-host-keeps-back-is-for-the-others-of-the-store": (
        copies(("a", "h", "n", 0, ANY), ("b", "i", "n", 0, ANY)), {"n": 60}, {"h": 10}, {"a": 10, "b": 50},
    ),
    "what-a-store-keeps-back-is-for-the-others-of-the-host": (
        copies(("a", "h", "n", 0, ANY), ("b", "h", "", 0, ANY)), {"n": 10}, {"h": 60}, {"a": 10, "b": 50},
    ),
    "room-to-begin-in": (copies(("a", "h", "n", 0, 10), ("b", "i", "n", 0, 20)), {"n": 60}, {}, {"a": 25, "b": 35}),
    "but-none-for-one-who-has-his-own-limit": (
        copies(("a", "h", "n", 12, 12), ("b", "i", "n", 0, 20)), {"n": 60}, {}, {"a": 12, "b": 48},
    ),
    "nor-for-one-whose-host-has-no-more": (
        copies(("a", "h", "n", 0, 10), ("b", "i", "n", 0, 20)), {"n": 60}, {"h": 10}, {"a": 10, "b": 50},
    ),
    "nor-for-one-who-is-paused": (
        copies(("a", "h", "n", 0, ANY, True), ("b", "i", "n", 0, 1 << 20)), {"n": 1 << 24}, {},
        {"a": PAUSED, "b": (1 << 24) - PAUSED},
    ),
    "if-anybody-is-not": (copies(("a", "h", "n", 0, ANY, True)), {"n": 1 << 24}, {}, {"a": 1 << 24}),
}  # fmt: skip


@pytest.mark.parametrize(("running", "stores", "hosts", "expected"), LIMITS.values(), ids=LIMITS)
def test_a_copy_gets_the_least_of_its_own_its_stores_and_its_hosts(running, stores, hosts, expected):
    assert copy_limits(running, stores, hosts) == expected


ROWS = st.lists(
    st.tuples(
        st.sampled_from("hij"), st.sampled_from(["", "n", "m"]), st.integers(0, 1000), st.integers(0, 1000),
        st.booleans(),
    ),
    max_size=20,
)  # fmt: skip
BUDGETS = st.integers(0, 1000)


@given(ROWS, BUDGETS, BUDGETS, BUDGETS)
def test_neither_a_store_nor_a_host_is_ever_promised_twice(rows, n, m, h):
    running = copies(*((str(at), *row) for at, row in enumerate(rows)))
    found = copy_limits(running, {"n": n, "m": m}, {Host("h"): h})
    for budget, of in ((n, "n"), (m, "m"), (h, "h")):
        members = [found[job] for job, copy in running.items() if of in (copy.store, copy.host)]
        if budget >= len(members) and budget:
            assert sum(members) <= budget
        assert all(members) or not budget, "a limit of 0 would be none"


@pytest.mark.parametrize(
    ("used", "limit", "wanted"),
    [(None, 20, ANY), (20, 0, ANY), (20, 20, ANY), (18, 20, ANY), (17, 20, 21), (8, 20, 10), (0, 20, 1)],
)
def test_whoever_uses_nearly_all_that_he_may_wants_all_that_he_can_get(used, limit, wanted):
    assert demanded_rate(used, limit) == wanted


# --- one after the other ----------------------------------------------------------------------------------

TWO = copies(("a", "h", "n", 0, ANY), ("b", "i", "n", 0, ANY))
APART = copies(("a", "h", "n", 0, ANY), ("b", "i", "m", 0, ANY))
ONE_HOST = copies(("a", "h", "n", 0, ANY), ("b", "h", "m", 0, ANY))
STORES, HOSTS = {"n": 60, "m": 60}, {Host("h"): 60}
TIMELY = {
    # case: (new limits, (limit, felt) of each, copies, budgets of stores, of hosts, what is handed out)
    "less-goes-first": ({"a": 30, "b": 30}, {"a": (60, 60), "b": (1, 1)}, TWO, STORES, {}, {"a": 30}),
    "more-waits-for-what-was-handed-out": ({"b": 30}, {"a": (30, 60), "b": (1, 1)}, TWO, STORES, {}, {}),
    "and-comes-when-that-is-felt": ({"b": 30}, {"a": (30, 30), "b": (1, 1)}, TWO, STORES, {}, {"b": 30}),
    "the-users-own-limit-counts": ({"b": 30}, {"a": (30, 10), "b": (1, 1)}, TWO, STORES, {}, {"b": 30}),
    "the-first-limit-is-less": ({"a": 30, "b": 30}, {"a": (0, 0), "b": (1, 1)}, TWO, STORES, {}, {"a": 30}),
    "none-any-more-is-more": ({"a": 0, "b": 5}, {"a": (30, 30), "b": (9, 9)}, TWO, STORES, {}, {"b": 5}),
    "another-store-is-no-matter": ({"a": 30, "b": 30}, {"a": (60, 60), "b": (1, 1)}, APART, STORES, {},
                                   {"a": 30, "b": 30}),
    "one-host-is": ({"a": 30, "b": 30}, {"a": (60, 60), "b": (1, 1)}, ONE_HOST, STORES, HOSTS, {"a": 30}),
    "but-not-one-without-a-limit": ({"a": 30, "b": 30}, {"a": (60, 60), "b": (1, 1)}, ONE_HOST, STORES, {},
                                    {"a": 30, "b": 30}),
}  # fmt: skip


@pytest.mark.parametrize("case", TIMELY.values(), ids=TIMELY)
def test_whoever_is_to_have_more_waits_for_those_who_are_to_have_less(case):
    found, has, running, stores, hosts, now = case
    assert timely_limits(found, {job: Has(*row) for job, row in has.items()}, running, stores, hosts) == now


BUDGET_OF_ALL = 1000
TURNS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["hears", "hears", "wants all", "wants little", "comes", "goes"])),
    max_size=60,
)


def worst(turns, hand_out):
    """The most that five copies may move together at any moment, if each goes by what it heard last."""
    wants, has, most = {}, {}, 0
    for number, what in turns:
        job = JobId(str(number))
        match what:
            case "comes" if job not in has:
                wants[job], has[job] = ANY, Has(1, 1)
            case "goes":
                wants.pop(job, None)
                has.pop(job, None)
            case "hears" if job in has:
                has[job] = replace(has[job], felt=has[job].limit)
            case "wants all" | "wants little" if job in has:
                wants[job] = ANY if what == "wants all" else 1
        running = {job: CopyRate(Host("h"), job, "n", 0, n) for job, n in wants.items()}
        found = copy_limits(running, {"n": BUDGET_OF_ALL}, {})
        for job, limit in hand_out(found, has, running, {"n": BUDGET_OF_ALL}, {}).items():
            has[job] = replace(has[job], limit=limit)
        most = max(most, sum(max(each.limit, each.felt) for each in has.values()))
    return most


@given(TURNS)
def test_no_budget_is_exceeded_whenever_anybody_hears_of_anything(turns):
    assert worst(turns, timely_limits) <= BUDGET_OF_ALL + 4, "who comes may move a byte a second"


def test_it_would_be_if_all_were_handed_out_at_once():
    turns = [(0, "comes"), (0, "hears"), (1, "comes"), (1, "hears")]
    assert worst(turns, lambda found, *_: found) >= 1.5 * BUDGET_OF_ALL
    assert worst(turns, timely_limits) <= BUDGET_OF_ALL + 1
