"""Redis agrees with the tables: every status against every other, every verb against every status."""

from __future__ import annotations

import pytest
import redis
from puppets import spec

from blockjobs.model import errors
from blockjobs.model.barriers import AwaitUser, Step
from blockjobs.model.states import ACCEPTS, MOVES, Status, Verb
from blockjobs.registry import keys, scripts

JOB = spec("j", auto_finalize=False)
MOVE = """\
-- KEYS[1] job  KEYS[2] events   ARGV[1] id   ARGV[2] to
return move(KEYS[2], KEYS[1], ARGV[1], ARGV[2])
"""
VERBS = [verb for verb in Verb if verb is not Verb.CHANGE]  # which changes nothing here: QMP alone answers it


@pytest.mark.parametrize("to", Status)
@pytest.mark.parametrize("status", Status)
def test_a_script_moves_a_job_along_the_edges_of_the_table_and_no_other(client, status, to):
    job = keys.job(JOB.host, JOB.id)
    client.hset(job, mapping={"status": status, "txn": "t", "run": "r", "host": "alpha"})
    move = client.register_script(scripts.assemble_script(MOVE))
    if to in MOVES[status]:
        assert move(keys=[job, keys.events()], args=[JOB.id, to]) == status.encode()
        ((_, event),) = client.xrange(keys.events())
        assert event == {b"event": b"JOB_STATUS_CHANGE", b"id": b"j", b"txn": b"t", b"run": b"r", b"host": b"alpha",
                         b"status": to.encode(), b"from": status.encode()}  # fmt: skip
    else:
        with pytest.raises(redis.ResponseError, match=f"illegal move of job j from {status} to {to}"):
            move(keys=[job, keys.events()], args=[JOB.id, to])
        assert client.xlen(keys.events()) == 0
        to = status
    assert client.hget(job, "status") == to.encode()


def apply(registry, verb):
    match verb:
        case Verb.SET_SPEED:
            registry.verbs.set_speed(JOB.id, 5)
        case _:
            getattr(registry.verbs, verb)(JOB.id)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_taken_where_the_table_has_a_one_and_refused_in_qemus_words_elsewhere(fleet, verb, status):
    fleet.submit(JOB)
    fleet.client.hset(keys.job(JOB.host, JOB.id), "status", status)
    if verb is Verb.RESUME:
        fleet.client.hset(keys.holds(JOB.host, JOB.id), "user", "")
    before = fleet.client.xlen(keys.events())
    if status in ACCEPTS[verb]:
        apply(fleet.registry, verb)
        return
    expected = (
        "Block job 'j' not found" if status is Status.UNDEFINED  # staged: invisible
        else f"Job 'j' in state '{status}' cannot accept command verb '{verb}'"
    )  # fmt: skip
    with pytest.raises(errors.Refused) as refused:
        apply(fleet.registry, verb)
    assert str(refused.value) == expected
    assert fleet.client.xlen(keys.events()) == before
    assert fleet.client.hget(keys.txn(JOB.transaction), "rev") == b"0"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_for_a_job_that_is_not_there_says_so(registry, verb):
    with pytest.raises(errors.NoSuchJob, match=r"^Block job 'j' not found$"):
        apply(registry, verb)


def test_resume_of_a_job_that_is_not_held_is_refused_before_its_state_is_looked_at(fleet):
    fleet.submit(JOB)
    for status in (Status.RUNNING, Status.WAITING, Status.CONCLUDED):
        fleet.client.hset(keys.job(JOB.host, JOB.id), "status", status)
        with pytest.raises(errors.Refused, match=r"^Can't resume a job that was not paused$"):
            fleet.registry.verbs.resume(JOB.id)


def test_a_negative_speed_is_refused_after_the_state(fleet):
    fleet.submit(JOB)
    with pytest.raises(errors.Refused, match=r"^Parameter 'speed' expects a non-negative value$"):
        fleet.registry.verbs.set_speed(JOB.id, -1)
    fleet.client.hset(keys.job(JOB.host, JOB.id), "status", "waiting")
    with pytest.raises(errors.VerbRefused):
        fleet.registry.verbs.set_speed(JOB.id, -1)


def test_a_second_pause_for_the_same_reason_is_refused(fleet):
    fleet.submit(JOB)
    fleet.registry.verbs.pause(JOB.id)
    with pytest.raises(errors.Refused, match=r"^Job is already paused$"):
        fleet.registry.verbs.pause(JOB.id)


def test_once_a_transaction_is_decided_cancel_and_finalize_are_refused_by_state(fleet):
    txn = fleet.submit(JOB)
    fleet.walk(txn, Step.RUN)
    fleet.copy(JOB)
    fleet.walk(txn, AwaitUser)
    fleet.registry.verbs.finalize(JOB.id)
    with pytest.raises(errors.VerbRefused, match="'j' in state 'pending' cannot accept command verb 'finalize'"):
        fleet.registry.verbs.finalize(JOB.id)  # it was given already
    fleet.walk(txn, Step.SETTLE)
    for verb in ("cancel", "finalize"):
        with pytest.raises(errors.VerbRefused, match=f"'j' in state 'pending' cannot accept command verb '{verb}'"):
            apply(fleet.registry, verb)
