"""A job that moves takes everything along: its record, its locks, and what it owes its transaction."""

from __future__ import annotations

from dataclasses import replace

import pytest
from puppets import ALPHA, BETA, RUN, SIZE, Fleet, dump, only_asks, spec

from blockjobs.model import errors
from blockjobs.model.barriers import Decision, Step
from blockjobs.model.ids import Host, TxnId
from blockjobs.registry import keys
from blockjobs.registry.attempts import Claim, Progress
from blockjobs.registry.handover import MOVE, job_on_host
from blockjobs.registry.views import Views

ONE, TWO, OTHER = spec("one"), spec("two"), spec("other", host=BETA)
GAMMA = Host("gamma")


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(ONE, TWO, OTHER)
    fleet.walk(RUN, Step.RUN)
    return fleet


def hand_over(fleet, job, to, *, hold=True):
    if hold:
        fleet.registry.verbs.pause(job.id, reason=MOVE + to)
    view = fleet.registry.views.job(job.id)
    return fleet.registry.moves.move(view, to, reads=f"r-{job.id}", writes=f"w-{job.id}")


def settled(client):
    """Nothing is locked, held, queued or counted any more, on any host."""
    rest = [key for key in dump(client) if key.startswith("bj:h:") and ":job:" not in key and not only_asks(key)]
    assert not rest
    assert not client.exists(keys.texts())


@pytest.mark.parametrize("to", [BETA, GAMMA], ids=["a member host", "a host that had no member"])
def test_a_moved_job_commits_with_its_transaction(fleet, client, to):
    assert hand_over(fleet, ONE, to) == "running"
    view = fleet.registry.views.job("one")
    assert (view.host, view.spec.source.text, view.spec.target.text) == (
        to,
        f"{to}:/srv/one.img",
        f"{to}:/backup/one.img",
    )
    assert client.zrange(keys.ready(to), 0, -1)[-1] == b"one"
    assert client.zrange(keys.ready(ALPHA), 0, -1) == [b"two"]
    assert [place.host for place in fleet.registry.views.places(RUN)] == [to, ALPHA, BETA]
    fleet.copy(job_on_host(ONE, to), TWO, OTHER)
    fleet.walk(RUN)
    fleet.close(RUN)
    assert fleet.view(RUN).decision is Decision.COMMIT
    assert {fleet.status(job) for job in ("one", "two", "other")} == {"concluded"}
    settled(client)


def test_a_move_takes_its_locks_along_and_makes_what_was_seen_before_too_old(fleet, client):
    fleet.registry.verbs.pause("one", reason=MOVE + BETA)
    before = fleet.view(RUN).rev
    hand_over(fleet, ONE, BETA, hold=False)
    assert fleet.view(RUN).rev > before
    assert client.hget(keys.locks(BETA), "w:w-one") == b"one"
    assert client.hget(keys.locks(ALPHA), "w:w-one") is None


def test_it_goes_on_from_its_durable_checkpoint_with_a_higher_token(fleet):
    claim = fleet.claim(ONE)
    attempts = fleet.host(ALPHA).attempts
    fleet.registry.verbs.pause("one", reason=MOVE + BETA)
    assert attempts.checkpoint(claim, Progress(7, SIZE), quiet=True).park
    with pytest.raises(errors.Refused, match="does not rest"):
        hand_over(fleet, ONE, BETA, hold=False)
    attempts.release(ONE.id, RUN, claim.token, claim.attempt, why="parked")
    hand_over(fleet, ONE, BETA, hold=False)
    with pytest.raises(errors.LeaseLost):
        attempts.checkpoint(claim, Progress(8, SIZE))
    again = fleet.claim(job_on_host(ONE, BETA))
    assert isinstance(again, Claim)
    assert (again.token, again.offset, again.spec.host) == (claim.token + 1, 7, BETA)


def test_other_holds_stay_and_the_drain_of_the_old_host_does_not(fleet):
    fleet.registry.verbs.pause("one")
    fleet.registry.verbs.pause("one", reason="drain:alpha")
    assert hand_over(fleet, ONE, BETA) == "paused"
    assert set(fleet.registry.views.job("one").holds) == {"user"}
    assert fleet.registry.verbs.resume("one") == "running"


def test_the_last_member_that_leaves_takes_the_host_out_of_the_transaction(fleet, client):
    hand_over(fleet, ONE, BETA)
    hand_over(fleet, TWO, BETA)
    assert set(fleet.view(RUN).shares) == {BETA}
    assert not client.exists(keys.tally(ALPHA, RUN), keys.members(ALPHA, RUN), keys.locks(ALPHA))
    fleet.registry.verbs.cancel("two")
    fleet.walk(RUN)
    fleet.close(RUN)
    settled(client)


def test_what_cannot_move_is_refused_and_nothing_changes(fleet, client):
    before = dump(client)
    with pytest.raises(errors.Refused, match="'running' cannot be moved"):
        hand_over(fleet, ONE, BETA, hold=False)
    assert dump(client) == before
    fleet.registry.holds.begin("drain:beta")
    with pytest.raises(errors.Refused, match="'beta' is drained"):
        hand_over(fleet, ONE, BETA)
    fleet.registry.holds.lift("drain:beta")
    lone = spec("lone", host=BETA, run="r2-20261122T000000Z", target=job_on_host(TWO, BETA).target)
    fleet.submit(lone)
    fleet.walk(lone.transaction, Step.RUN)
    with pytest.raises(errors.VolumeBusy, match="'lone'"):
        hand_over(fleet, TWO, BETA)
    fleet.copy(OTHER)
    with pytest.raises(errors.Refused, match="cannot accept command verb 'pause'"):
        hand_over(fleet, OTHER, ALPHA)


LOCKED = {
    "source written": lambda fleet: fleet.client.hset(keys.texts(), f"w:{job_on_host(ONE, BETA).source.lock}", "x"),
    "target written": lambda fleet: fleet.client.hset(keys.texts(), f"w:{job_on_host(ONE, BETA).target.lock}", "x"),
    "target read": lambda fleet: fleet.client.hset(keys.texts(), f"r:{job_on_host(ONE, BETA).target.lock}", 1),
    "source written by another name": lambda fleet: fleet.client.hset(keys.locks(BETA), "w:r-one", "x"),
    "target written by another name": lambda fleet: fleet.client.hset(keys.locks(BETA), "w:w-one", "x"),
    "target read by another name": lambda fleet: fleet.client.hset(keys.locks(BETA), "r:w-one", 1),
}


@pytest.mark.parametrize("lock", LOCKED.values(), ids=LOCKED)
def test_no_job_moves_to_where_its_volumes_are_in_use(fleet, client, lock):
    lock(fleet)
    fleet.registry.verbs.pause("one", reason=MOVE + BETA)
    before = dump(client)
    with pytest.raises(errors.VolumeBusy):
        hand_over(fleet, ONE, BETA, hold=False)
    assert dump(client) == before


def test_a_job_moves_for_the_sake_of_its_move_alone_in_its_own_transaction_and_before_the_decision(fleet, client):
    fleet.registry.verbs.pause("one")
    view, move = fleet.registry.views.job("one"), fleet.registry.moves.move
    with pytest.raises(errors.Refused, match="does not rest"):
        move(view, BETA)
    fleet.registry.verbs.pause("one", reason=MOVE + BETA)
    with pytest.raises(errors.NoSuchJob):
        move(replace(view, transaction=TxnId("the try before")), BETA)
    assert fleet.registry.transactions.settle(fleet.view(RUN), Decision.ABORT, "meanwhile")
    with pytest.raises(errors.Refused, match="is decided"):
        move(view, BETA)
    assert fleet.registry.views.job("one").host == ALPHA


def test_a_decision_on_a_view_from_before_is_refused(fleet):
    view = fleet.view(RUN)
    hand_over(fleet, ONE, BETA)
    assert not fleet.registry.transactions.settle(view, Decision.ABORT, "because")


@pytest.mark.parametrize("verb", ["pause", "cancel", "set_speed"])
def test_a_verb_that_finds_the_job_gone_from_where_it_was_follows_it(fleet, verb):
    """The verb looks up the place, the job moves, the script looks into the old record."""
    verbs = fleet.registry.verbs

    class Overtaken(Views):
        looks = 0

        def place(self, job_id):
            found = super().place(job_id)
            Overtaken.looks += 1
            if Overtaken.looks == 1:
                hand_over(Fleet(fleet.client), ONE, BETA)
            return found

    verbs._views = Overtaken(fleet.client)
    getattr(verbs, verb)("one", *[5] * (verb == "set_speed"))
    view = fleet.registry.views.job("one")
    assert view.host == BETA
    assert {"pause": view.paused, "cancel": view.cancelled, "set_speed": view.speed == 5}[verb]
