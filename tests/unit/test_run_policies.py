"""How a run ended, from its counts and the policies of its file: the whole of it as a table."""

from __future__ import annotations

import pytest

from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.policies import (
    Count,
    Policy,
    RunOutcome,
    Verdict,
    next_try,
    outcome_of,
    retry_after,
    run_verdict,
    transaction_id,
    transaction_name,
)

ALL, FAILED, PARTIAL = Verdict.ALL, Verdict.FAILED, Verdict.PARTIAL
GROUP, EACH = Policy(), Policy(grouped=False)
MOST = Policy(grouped=False, succeed_if=95.0)
RUN = RunId("nightly-20261122T103000Z")

ENDS = [  # what it asks for, (jobs started, ended badly, left out), how it ended
    ("all-of-a-group",               GROUP, (4, 0, 0),     ALL),
    ("an-aborted-group",             GROUP, (4, 4, 0),     FAILED),
    ("a-group-without-some",         GROUP, (4, 0, 1),     PARTIAL),
    ("an-aborted-group-without",     GROUP, (4, 4, 1),     FAILED),
    ("each",                         EACH,  (40, 0, 0),    ALL),
    ("one-of-each-failed",           EACH,  (40, 1, 0),    FAILED),
    ("each-without-two",             EACH,  (38, 0, 2),    PARTIAL),
    ("a-failure-is-not-an-absence",  EACH,  (38, 1, 2),    FAILED),
    ("nobody-was-there",             EACH,  (0, 0, 40),    PARTIAL),
    ("enough-and-all",               MOST,  (40, 0, 0),    ALL),
    ("enough-exactly",               MOST,  (40, 2, 0),    PARTIAL),
    ("not-enough",                   MOST,  (40, 3, 0),    FAILED),
    ("absent-ones-count",            MOST,  (38, 0, 2),    PARTIAL),
    ("absent-and-failed-count",      MOST,  (38, 1, 2),    FAILED),
    ("too-many-absent",              MOST,  (37, 0, 3),    FAILED),
    ("enough-of-nothing",            MOST,  (0, 0, 40),    FAILED),
    ("a-thousandth",     Policy(grouped=False, succeed_if=99.9), (1000, 1, 0), PARTIAL),
    ("two-thousandths",  Policy(grouped=False, succeed_if=99.9), (1000, 2, 0), FAILED),
    ("any",              Policy(grouped=False, succeed_if=0.1),  (9, 8, 0),    PARTIAL),
    ("salvaged",                     EACH,  (40, 0, 0, 1), FAILED),
    ("a-salvaged-group",             GROUP, (4, 0, 0, 4),  FAILED),
    ("salvaged-and-enough",          MOST,  (40, 1, 0, 1), FAILED),
    ("salvaged-will-do",             Policy(grouped=False, salvaged=True), (40, 0, 0, 1), PARTIAL),
    ("salvaged-will-do-for-a-group", Policy(salvaged=True), (4, 0, 0, 2),  PARTIAL),
    ("salvaged-will-do-failed-not",  Policy(grouped=False, salvaged=True), (40, 1, 0, 1), FAILED),
    ("whole-although-not-asked-for", Policy(salvaged=True), (4, 0, 0, 0),  ALL),
    ("none",             Policy(grouped=False, succeed_if=0.1),  (9, 9, 0),    FAILED),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "count", "ended"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_how_a_transaction_ended(policy, count, ended):
    assert run_verdict({"t": Count(*count)}, {"t": policy}) is ended


@pytest.mark.parametrize(
    ("first", "second", "ended"),
    [
        ((1, 0, 0), (1, 0, 0), ALL), ((1, 0, 1), (1, 0, 0), PARTIAL), ((1, 0, 1), (1, 1, 0), FAILED),
        ((1, 1, 0), (1, 0, 0), FAILED),
    ],
)  # fmt: skip
def test_the_worst_transaction_is_how_a_run_ended(first, second, ended):
    assert run_verdict({"a": Count(*first), "b": Count(*second)}, {"a": GROUP, "b": EACH}) is ended


def test_verdicts_are_exit_codes():
    assert [int(each) for each in (ALL, FAILED, PARTIAL)] == [0, 1, 4]


@pytest.mark.parametrize(
    ("name", "grouped", "txn"),
    [("", True, RUN), ("", False, f"{RUN}.db.1"), ("db", True, f"{RUN}.db"), ("db", False, f"{RUN}.db.db.1")],
)
def test_a_transaction_is_named_so_that_its_policy_is_found_again(name, grouped, txn):
    made = transaction_id(RUN, name, JobId(f"{RUN}.db.1"), grouped=grouped)
    assert made == txn
    assert transaction_name(RUN, made, [name]) == name


@pytest.mark.parametrize(
    ("wait", "delays"),
    [(30, [30, 60, 120, 240, 480, 900, 900]), (0, [0] * 7), (1, [1, 2, 4, 8, 16, 32, 64]), (3600, [3600] * 7)],
)
def test_what_failed_is_tried_again_ever_later_but_never_much_later(wait, delays):
    assert [retry_after(wait, number) for number in range(1, 8)] == delays
    assert retry_after(wait, 100) == max(delays[-1], 900 if wait else 0)


def test_a_next_try_is_of_the_same_transaction_of_the_file_and_no_name_grows_too_long():
    first = transaction_id(RUN, "web", JobId(f"{RUN}.a"), grouped=False)
    second = next_try(first, 2, 200)
    assert (second, next_try(second, 3, 200)) == (f"{first}.try2", f"{first}.try3")
    assert transaction_name(RUN, second, ["web"]) == "web"
    assert next_try(TxnId("x" * 250), 10, 200) == "x" * 194 + ".try10"


@pytest.mark.parametrize(
    ("jobs", "failed", "cancelled", "outcome"),
    [
        (4, 0, 0, RunOutcome.COMMITTED),
        (4, 1, 0, RunOutcome.PARTLY),
        (4, 1, 2, RunOutcome.PARTLY),
        (4, 0, 3, RunOutcome.PARTLY),
        (4, 1, 3, RunOutcome.ABORTED),
        (4, 0, 4, RunOutcome.CANCELLED),
        (0, 0, 0, RunOutcome.COMMITTED),
    ],
)
def test_the_word_for_an_end_is_the_same_wherever_it_is_said(jobs, failed, cancelled, outcome):
    assert outcome_of(jobs, failed, cancelled) is outcome
