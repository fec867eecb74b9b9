"""One record that nobody of ours wrote so is put aside and named; every other one is handled as ever."""

from __future__ import annotations

import threading
import time

import pytest
from puppets import ALPHA, BETA, RUN, spec

from blockjobs.daemons.finalizer import Finalizer
from blockjobs.model.barriers import Step
from blockjobs.process.clock import Every
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry import keys

OTHER = "other-20261122T000000Z"
LIMIT = 10.0  # seconds, for a busy machine


class Bells:
    """The bells that were rung: (host, what)."""

    def __init__(self):
        self.rung = []

    def step(self, host, step, txn):
        self.rung.append((host, f"{step} {txn}"))

    def copy(self, host, job):
        self.rung.append((host, f"copy {job}"))


class Clock:
    """A clock that is set."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def judge(fleet, clock):
    return Finalizer(fleet.registry, Bells(), quarantine=Quarantine(clock), _each_look=Every(0))


def turns(daemon, until):
    over = time.monotonic() + LIMIT
    while not until():
        assert time.monotonic() < over, "it does not happen"
        daemon.once()


def replaced(client, key, value):
    """Another kind of value under a key; what brings back the one before."""
    kept = client.dump(key)
    client.delete(key)
    client.set(key, value)
    return lambda: client.restore(key, 0, kept, replace=True)


def changed(client, key, field, value):
    """Another value of a field; what brings back the one before."""
    kept = client.hget(key, field)
    client.hset(key, field, value)
    return (lambda: client.hset(key, field, kept)) if kept is not None else (lambda: client.hdel(key, field))


def one_too_many(client):
    """A step is owed once more than there are members; what makes it add up again once all have done it."""
    client.hset(keys.tally(ALPHA, RUN), "start", 2)
    return lambda: client.hset(keys.tally(ALPHA, RUN), "start", 0)


ODD_TRANSACTIONS = {
    "a tally that is one too high": one_too_many,
    "a tally that is no number": lambda c: changed(c, keys.tally(ALPHA, RUN), "prepare", "many"),
    "a share of another kind": lambda c: replaced(c, keys.tally(ALPHA, RUN), "x"),
    "a revision that is no number": lambda c: changed(c, keys.txn(RUN), "rev", "new"),
    "a decision that nobody knows": lambda c: changed(c, keys.txn(RUN), "decision", "perhaps"),
    "a host that is no text": lambda c: changed(c, keys.txn(RUN), b"host:\xff\xfe", "1"),
    "a record of another kind": lambda c: replaced(c, keys.txn(RUN), "x"),
    "members of another kind": lambda c: replaced(c, keys.members(ALPHA, RUN), "x"),
}


@pytest.mark.parametrize("odd", ODD_TRANSACTIONS.values(), ids=ODD_TRANSACTIONS)
def test_an_odd_transaction_is_put_aside_and_named_and_goes_on_once_it_is_mended(fleet, judge, clock, odd):
    fleet.submit(spec("a"))
    fleet.answer(ALPHA, RUN, Step.OPEN)
    fleet.answer(ALPHA, RUN, Step.CUT)
    mend = odd(fleet.client)
    turns(judge, lambda: fleet.registry.hosts.daemon_aside("finalizer"))
    fleet.submit(spec("b", host=BETA, run=OTHER))
    turns(judge, lambda: (BETA, f"{Step.OPEN} {OTHER}") in judge.doorbell.rung)
    assert list(judge.quarantine.told()) == [f"transaction {RUN}"]
    for _ in range(3):
        judge.once()
    assert "times" not in judge.quarantine.told()[f"transaction {RUN}"], "it was tried again and again"

    mend()
    clock.now += 2.0
    turns(judge, lambda: not judge.quarantine.told())
    assert fleet.status("a") == "running"
    turns(judge, lambda: not fleet.registry.hosts.daemon_aside("finalizer"))


def test_a_step_that_changes_nothing_is_not_done_again_at_once(fleet, judge, clock):
    """A tally that is one too high never comes to nothing: each look says that the same step is owed."""
    fleet.submit(spec("a"))
    fleet.answer(ALPHA, RUN, Step.OPEN)
    fleet.answer(ALPHA, RUN, Step.CUT)
    fleet.client.hincrby(keys.tally(ALPHA, RUN), "start", 1)
    turns(judge, judge.quarantine.told)
    before = _scripts_run(fleet.client)
    clock.now += 2.0  # it is tried once more
    over = time.monotonic() + 1.0
    while time.monotonic() < over:
        judge.once()
    assert "(2 times)" in judge.quarantine.told()[f"transaction {RUN}"]
    assert 0 < _scripts_run(fleet.client) - before < 20


def _scripts_run(client):
    return client.info("commandstats")["cmdstat_evalsha"]["calls"]


def test_a_transaction_that_takes_long_holds_up_no_other_one(fleet, judge, monkeypatch):
    """Another one gets its turn while its lane is busy."""
    busy, free = threading.Event(), threading.Event()
    fleet.submit(spec("a"))
    real = fleet.registry.transactions.view

    def view(txn, start):
        if txn == RUN:
            busy.set()
            assert free.wait(LIMIT)
        return real(txn, start)

    monkeypatch.setattr(fleet.registry.transactions, "view", view)
    judge.once()
    assert busy.is_set()
    fleet.submit(spec("b", host=BETA, run=OTHER))
    turns(judge, lambda: (BETA, f"{Step.OPEN} {OTHER}") in judge.doorbell.rung)
    free.set()
    turns(judge, lambda: (ALPHA, f"{Step.OPEN} {RUN}") in judge.doorbell.rung)
