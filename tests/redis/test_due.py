"""What is due is looked at: nothing that comes up while somebody looks is lost."""

from __future__ import annotations

import pytest
from puppets import ALPHA, RUN, Silent, grouped, spec

from blockjobs.daemons import finalizer
from blockjobs.model.barriers import Decision, Step
from blockjobs.process.clock import Every, seconds_since_boot
from blockjobs.registry import keys


def dues(fleet):
    return [due.txn for due in fleet.due()]


def test_a_transaction_that_was_looked_at_is_off_the_list(fleet):
    txn = fleet.submit(spec("a"))
    assert dues(fleet) == [txn]
    fleet.close(txn)
    assert dues(fleet) == []
    assert fleet.registry.views.unfinished() == [txn]


def test_since_when_a_transaction_stands_where_it_is_does_not_change_while_it_stands_there(fleet):
    txn = fleet.submit(spec("a"))
    fleet.registry.transactions.barrier(txn, "open")
    before = fleet.client.hgetall(keys.txn(txn))
    while fleet.registry.hosts.now() <= int(before[b"since"]):
        pass
    fleet.registry.transactions.barrier(txn, "open")
    assert fleet.client.hgetall(keys.txn(txn)) == before


def test_of_a_transaction_that_is_gone_nothing_is_noted(fleet):
    txn = fleet.submit(spec("a"))
    (due,) = fleet.due()
    view = fleet.view(txn)
    fleet.client.delete(keys.txn(txn))
    fleet.registry.transactions.barrier(txn, "open")
    fleet.registry.transactions.close(due, view, finished=True)
    assert not fleet.registry.transactions.settle(view, Decision.COMMIT, "it was there")
    assert not fleet.client.exists(keys.txn(txn), keys.decisions())


def test_what_comes_up_between_the_view_and_the_close_is_not_lost(fleet):
    txn = fleet.submit(spec("a"))
    (due,) = fleet.due()
    view = fleet.view(txn)
    fleet.registry.verbs.cancel("a")
    fleet.registry.transactions.close(due, view, finished=False)
    assert dues(fleet) == [txn]


def test_nor_what_comes_up_behind_the_close_of_another_finalizer(fleet):
    txn = fleet.submit(spec("a"))
    (one,) = fleet.due()
    (other,) = fleet.due()
    view = fleet.view(txn)
    fleet.registry.transactions.close(one, view, finished=False)
    fleet.registry.verbs.cancel("a")
    fleet.registry.transactions.close(other, view, finished=False)  # of a view older than the cancel
    assert dues(fleet) == [txn]


def test_the_reminder_makes_every_unfinished_transaction_due_again_and_no_other(fleet):
    done, open_ = spec("a"), spec("b", run="other-20261122T000000Z")
    fleet.submit(done)
    fleet.submit(open_)
    fleet.registry.verbs.cancel("a")
    fleet.walk(done.transaction)
    fleet.close(done.transaction)
    fleet.close(open_.transaction)
    assert dues(fleet) == []
    fleet.registry.transactions.remind()
    assert dues(fleet) == [open_.transaction]


def test_who_waits_longest_is_looked_at_first(fleet):
    for n in range(3):
        fleet.submit(spec(f"j{n}", run=f"r{n}-20261122T000000Z"))
    fleet.registry.verbs.set_speed("j0", 1)
    fleet.registry.verbs.cancel("j0")
    assert dues(fleet) == [f"r{n}-20261122T000000Z" for n in (1, 2, 0)]


@pytest.mark.parametrize("step", [Step.OPEN, Step.CUT, Step.PREPARE, Step.SETTLE])
def test_the_last_answer_of_a_host_makes_its_transaction_due_and_no_earlier_one(fleet, step):
    jobs = spec("a"), spec("b")
    fleet.submit(*jobs)
    if step in (Step.PREPARE, Step.SETTLE):
        fleet.walk(RUN, Step.RUN)
        fleet.copy(*jobs)
    fleet.walk(RUN, step)
    fleet.close(RUN)
    door = fleet.host(jobs[0].host).answers
    door.answer(RUN, step, [fleet._said(step, "a")])
    assert dues(fleet) == []
    door.answer(RUN, step, [fleet._said(step, "b")])
    assert dues(fleet) == [RUN]


def test_whoever_waits_for_something_due_is_woken_by_it(fleet):
    fleet.client.delete(keys.due_wake())
    fleet.registry.submit.submit(grouped(spec("a")))
    assert fleet.client.lrange(keys.due_wake(), 0, -1) == [b"1"]
    fleet.registry.verbs.cancel("a")
    assert fleet.client.lrange(keys.due_wake(), 0, -1) == [b"1"]  # never longer than one
    fleet.registry.transactions.wait(5)
    assert not fleet.client.exists(keys.due_wake())


@pytest.mark.parametrize(("knocks", "asks"), [(True, False), (False, True)], ids=["knocked", "knock-was-lost"])
def test_a_host_is_asked_what_is_due_there_when_it_has_knocked_and_now_and_then(fleet, monkeypatch, knocks, asks):
    """Not each second: of a thousand hosts that rest that would be most of what they cost."""
    monkeypatch.setattr(finalizer, "REST", 0.01)
    txn = fleet.submit(spec("a"))
    fleet.close(txn)
    fleet.client.delete(keys.due_wake())
    mine = finalizer.Finalizer(fleet.registry, Silent(), _each_look=lambda: False, _each_asking=lambda: False)
    mine._hosts = {ALPHA}
    mine.once()
    assert not mine._woken
    fleet.client.zadd(keys.host_due(ALPHA), {txn: 1})
    if knocks:
        fleet.client.lpush(keys.host_due_wake(ALPHA), "1")
    mine.once()
    assert fleet.client.exists(keys.host_due(ALPHA)), "it was not asked"
    mine._each_asking = lambda: asks
    mine.once()
    assert not fleet.client.exists(keys.host_due(ALPHA))


def test_a_host_is_asked_again_where_something_was_due_there(fleet, monkeypatch):
    """Its knock was taken with the first of what it had asked for."""
    monkeypatch.setattr(finalizer, "REST", 0.01)
    txn = fleet.submit(spec("a"))
    mine = finalizer.Finalizer(fleet.registry, Silent(), _each_look=lambda: False, _each_asking=lambda: False)
    mine._hosts, mine._woken = {ALPHA}, False
    mine.once()
    assert fleet.registry.transactions.due() == [], "it has looked at the transaction"
    fleet.client.zadd(keys.host_due(ALPHA), {txn: 1})
    mine.once()
    assert not fleet.client.exists(keys.host_due(ALPHA))


def test_a_finalizer_remembers_nothing_of_what_another_one_ended(fleet, monkeypatch):
    monkeypatch.setattr(finalizer, "LONG_LOOK", 0.0)  # every look is a long one, after which there is a rest
    mine = finalizer.Finalizer(fleet.registry, Silent(), _each_look=Every(0))
    txns = [fleet.submit(spec(f"j{n}", run=f"r{n}-20261122T000000Z")) for n in range(3)]
    mine.once()
    assert set(mine._rest) == set(mine._waiting) == set(txns)
    for n, txn in enumerate(txns):
        fleet.registry.verbs.cancel(f"j{n}")
        fleet.walk(txn)
        fleet.close(txn)
    monkeypatch.setattr(finalizer, "seconds_since_boot", lambda: seconds_since_boot() + finalizer.RING_AGAIN + 1)
    mine.once()
    monkeypatch.setattr(finalizer, "seconds_since_boot", lambda: seconds_since_boot() + 2 * finalizer.RING_AGAIN)
    mine.once()
    assert not mine._waiting
    assert not mine._rest
