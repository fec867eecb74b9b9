"""Redis is started anew between a finalizer's look and what it does: with an older copy of its data the look was never
true, and nothing is done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from puppets import ALPHA, RUN, dump, spec

from blockjobs.model.barriers import Decision, Retry, Step
from blockjobs.model.ids import RunId, TxnId
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.runs import RunPlan
from blockjobs.registry import keys
from blockjobs.registry.scripts import OF_A_START, Restarted

pytestmark = pytest.mark.durable

TXN = TxnId(f"{RUN}.each.a")
JOB = spec(f"{RUN}.a", txn=TXN)


@pytest.fixture
def going(fleet):
    """A run of one job, which is tried again once."""
    policies = {"each": Policy(grouped=False, retry=1)}
    plan = RunPlan(RunId(RUN), "nightly", False, ((JOB,),), RunFields(policies=policies))  # noqa: FBT003
    fleet.registry.submit.submit(plan)
    return fleet


def copied(fleet):
    fleet.walk(TXN, Step.RUN)
    fleet.copy(JOB)


def committed(fleet):
    copied(fleet)
    fleet.walk(TXN, Step.CONCLUDE)


def failed(fleet):
    fleet.walk(TXN, Step.RUN)
    fleet.finish(fleet.claim(JOB), errno=5, text="it broke")


def over(fleet):
    copied(fleet)
    fleet.walk(TXN)
    fleet.due()  # what hosts ask for is read here


def close(fleet, view):
    (due,) = [each for each in fleet.due() if each.txn == TXN]
    fleet.registry.transactions.close(due, view, finished=True, start=view.start)


# What brings the transaction to where the script does something, and what calls it.
EFFECTS = {
    "start": (
        lambda fleet: fleet.walk(TXN, Step.START),
        lambda fleet, view: fleet.registry.transactions.start(view, ALPHA),
    ),
    "pend": (copied, lambda fleet, view: fleet.registry.transactions.pend(view, ALPHA)),
    "settle": (
        lambda fleet: (copied(fleet), fleet.advance(TXN), fleet.answer(ALPHA, TXN, Step.PREPARE)),
        lambda fleet, view: fleet.registry.transactions.settle(view, Decision.COMMIT, "because"),
    ),
    "stop": (
        lambda fleet: (failed(fleet), fleet.walk(TXN, Step.STOP)),
        lambda fleet, view: fleet.registry.transactions.stop(view, ALPHA),
    ),
    "fail": (lambda _: None, lambda fleet, view: fleet.registry.transactions.fail(view, ALPHA, Step.OPEN, 110, "late")),
    "conclude": (committed, lambda fleet, view: fleet.registry.transactions.conclude(view, frozenset({ALPHA}))),
    "close": (over, close),
    "retry": (
        lambda fleet: (failed(fleet), fleet.walk(TXN, Retry)),
        lambda fleet, view: fleet.registry.retries.retry(view),
    ),
}


@pytest.mark.parametrize("script", EFFECTS)
def test_nothing_is_done_with_what_was_read_of_an_earlier_start_of_redis(going, script):
    prepare, call = EFFECTS[script]
    prepare(going)
    view, before = going.registry.transactions.view(TXN, going.registry.hosts.run_id()), dump(going.client)
    with pytest.raises(Restarted):
        call(going, replace(view, start="0" * 40))
    assert dump(going.client) == before
    call(going, view)
    assert dump(going.client) != before, "the control: of this start it is done"


def test_every_script_that_acts_on_a_look_is_tried():
    assert set(EFFECTS) == set(OF_A_START)


def test_what_a_later_registry_had_forgotten_is_not_taken_off_an_older_one(going):
    """The look found no transaction of that name; the copy that came back has it."""
    (due,) = [each for each in going.due() if each.txn == TXN]
    before = dump(going.client)
    with pytest.raises(Restarted):
        going.registry.transactions.close(due, None, finished=True, start="0" * 40)
    assert dump(going.client) == before
    assert going.client.zscore(keys.unfinished(), TXN) is not None
