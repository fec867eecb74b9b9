"""Stores on a real server: never more copies than they take, places that come back, limits beside the user's own."""

from __future__ import annotations

import random

import pytest
from puppets import ALPHA, BETA, RUN, SIZE, dump, grouped, spec, who

from blockjobs.daemons.budgets import BudgetDivider
from blockjobs.model import errors
from blockjobs.model.barriers import Step
from blockjobs.model.budgets import PAUSED
from blockjobs.model.ids import JobId, TxnId
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress

NAS = "nas1"
A, B, C, D = (spec(n, host=h, store=NAS) for n, h in (("a", ALPHA), ("b", ALPHA), ("c", BETA), ("d", BETA)))
FREE = spec("free")


@pytest.fixture
def running(fleet):
    """Four jobs to a store that takes two, and one to none; all wait for a slot."""
    fleet.registry.limits.set_store(NAS, path="/mnt/nas1", jobs=2, by="a file")
    fleet.submit(A, B, C, D, FREE)
    fleet.walk(RUN, Step.RUN)
    return fleet


def ring(fleet, *hosts, slots=9, lost=30_000):
    """What the coordinator does: sweep, admit, ring."""
    shares = BudgetDivider(fleet.registry)
    shares.look()
    return bells(fleet, shares, *hosts, slots=slots, lost=lost)


def bells(fleet, shares, *hosts, slots=9, lost=30_000):
    """Ring, knowing of stores what was seen at the last look."""
    return [
        job
        for host in hosts or (ALPHA, BETA)
        for job in fleet.registry.hosts.ring(host, slots, lost_after_ms=lost, limit=shares.at_first)
    ]


def store(fleet):
    return fleet.registry.limits.store(NAS)


def test_no_more_are_rung_than_the_store_takes_and_others_are_not_held_up(running):
    assert ring(running) == ["a", "b", "free"]
    assert ring(running) == []
    assert (store(running).running, store(running).waiting) == (2, 2)
    assert running.registry.views.job("c").crowded
    assert running.registry.limits.ahead(NAS, BETA, D.id) == 1


def test_a_copy_that_ends_gives_its_place_to_the_longest_waiting(running):
    ring(running)
    running.copy(A)
    assert ring(running) == ["c"]
    running.copy(B, C)
    assert ring(running) == ["d"]
    assert not running.registry.views.job("d").crowded


def test_a_dead_attempt_gives_its_place_back_and_may_have_it_again(running):
    ring(running)
    dead, _ = running.claim(A), running.claim(B)
    assert running.host(ALPHA).attempts.release(A.id, TxnId(RUN), dead.token, dead.attempt, why="dead")
    assert ring(running, BETA, ALPHA) == ["c"], "it was longer in line"
    running.copy(C)
    assert ring(running, BETA, ALPHA) == ["d"]
    running.copy(D)
    assert ring(running) == ["a"]


def test_a_job_that_is_paused_before_it_begins_gives_its_place_back(running):
    ring(running)
    running.registry.verbs.pause("a")
    assert ring(running) == ["c"]
    running.registry.verbs.resume("a")
    assert ring(running) == []
    running.copy(B, C)
    assert ring(running) == ["a", "d"]


def test_a_doorbell_that_was_given_up_is_no_claim_any_more(running):
    ring(running)
    assert ring(running, BETA, lost=0) == []  # full
    assert ring(running, ALPHA, slots=9, lost=0) == ["a", "b", "free"], "given up, and rung for anew"
    running.client.delete(keys.rung(ALPHA))
    refused = running.host(ALPHA).attempts.claim(A.id, who("late"))
    assert refused == "its doorbell came too late"
    assert ring(running, BETA) == ["c", "d"]


def test_a_lower_number_lets_finish_what_runs_and_a_higher_one_takes_more_at_once(running):
    ring(running)
    claims = running.claim(A), running.claim(B)
    assert running.registry.limits.set_store(NAS, jobs=1, by="me") == (2, 0)
    running.finish(claims[0])
    assert ring(running) == []
    running.registry.limits.set_store(NAS, jobs=0)
    assert ring(running) == ["c", "d"]


@pytest.mark.parametrize("free", [0, -1], ids=["full", "more than full"])
def test_nobody_is_let_out_of_the_crowd_of_a_store_that_is_full(running, free):
    ring(running)
    assert running.registry.limits.admit(NAS, free) == set()
    assert store(running).waiting == 2


@pytest.mark.parametrize("new", [True, False], ids=["defined", "lowered"])
def test_what_a_store_takes_counts_from_the_moment_it_is_said(fleet, new):
    """Jobs may be waiting before whoever rings has heard of their store."""
    if not new:
        fleet.registry.limits.set_store(NAS, path="/mnt/nas1", jobs=4)
    shares = BudgetDivider(fleet.registry)
    shares.look()
    fleet.registry.limits.set_store(NAS, path="/mnt/nas1", jobs=1)
    fleet.submit(A, B, C, D, FREE)
    fleet.walk(RUN, Step.RUN)
    assert bells(fleet, shares) == ["a", "free"]


def test_the_first_copies_to_a_new_store_share_its_budget(fleet):
    mib = 1 << 20
    shares = BudgetDivider(fleet.registry)
    shares.look()
    fleet.registry.limits.set_store(NAS, path="/mnt/nas1", speed=60 * mib)
    fleet.submit(A, B, C, D, FREE)
    fleet.walk(RUN, Step.RUN)
    assert bells(fleet, shares) == ["a", "b", "free", "c", "d"]
    speeds = [fleet.claim(job).speed for job in (A, B, C, D, FREE)]
    assert speeds == [60 * mib, PAUSED, PAUSED, PAUSED, 0]


def test_a_change_of_a_store_is_one_event_and_none_where_nothing_changed(running):
    limits = running.registry.limits
    assert limits.set_store(NAS, jobs=2, speed=50, by="me") == (2, 0)
    assert limits.set_store(NAS, jobs=2, speed=50, by="you") == (2, 50)
    assert limits.set_store("new", path="/x", by="a file") is None
    assert [id_ for _, id_ in running.events("STORE_SET")] == [NAS, NAS, "new"]
    with pytest.raises(errors.NoSuchStore, match="no store is named 'nas2'"):
        limits.set_store("nas2", jobs=1)


def test_each_thing_that_a_store_is_may_change_alone(running):
    for changes in ({"path": "/mnt/nas2"}, {"jobs": 3}, {"speed": 70}):
        running.registry.limits.set_store(NAS, **changes)
    assert (store(running).path, store(running).jobs, store(running).speed) == ("/mnt/nas2", 3, 70)
    assert running.events("STORE_SET") == [("STORE_SET", NAS)] * 4


def test_a_store_is_forgotten_once_with_those_that_wait_for_it(running):
    ring(running)
    names = [keys.stores(), keys.store(NAS), keys.places(NAS), keys.crowd(NAS), keys.events()]
    assert running.client.exists(*names[:4]) == 4
    answers = [running.registry.limits._scripts.call("store_gone", names, [NAS, "me"])[0] for _ in range(2)]
    assert answers == [b"gone", b"missing"], "as where two people remove it"
    assert not running.client.exists(*names[:4])
    assert running.events("STORE_REMOVED") == [("STORE_REMOVED", NAS)]


def test_no_place_is_given_back_that_is_in_use_again(running):
    """Whoever sweeps has seen it without a copy a moment before."""
    ring(running)
    running.claim(B)
    assert running.registry.limits.sweep(NAS, [(ALPHA, A.id), (ALPHA, B.id)]) == 0
    assert store(running).running == 2


def ring_for(fleet, job):
    """As a coordinator does that has seen the job in the line of its host a moment before."""
    names = [keys.ready(job.host), keys.rung(job.host), keys.attempts(job.host), keys.holding(), "queue"]
    names += [keys.job(job.host, job.id), keys.store(job.store), keys.places(job.store), keys.crowd(job.store)]
    words = [9, 9, 30_000, job.host, job.id, job.store, ""]
    return fleet.registry.limits._scripts.call("ring", names, words)[1:]


def test_one_that_was_claimed_meanwhile_is_not_rung_for(fleet):
    fleet.submit(FREE)
    fleet.walk(RUN, Step.RUN)
    fleet.claim(FREE)
    assert ring_for(fleet, FREE) == []


def test_one_that_waits_for_its_store_since_is_not_put_farther_back(running):
    ring(running)
    before = dump(running.client)
    assert ring_for(running, C) == []
    assert dump(running.client) == before


def test_those_that_wait_for_their_store_are_behind_all_others(fleet):
    """They are more than one look at the line of their host sees."""
    fleet.registry.limits.set_store(NAS, path="/mnt/nas1", jobs=1)
    fleet.submit(*(spec(f"j{n}", store=NAS) for n in range(6)), spec("last"))
    fleet.walk(RUN, Step.RUN)
    assert ring(fleet, ALPHA, slots=0) == ["j0"]
    assert ring(fleet, ALPHA, slots=0) == ["last"]


def test_one_that_was_resumed_and_has_a_place_waits_for_none(running):
    shares = BudgetDivider(running.registry)
    shares.look()
    assert bells(running, shares) == ["a", "b", "free"]
    running.registry.verbs.pause("c")
    running.registry.verbs.resume("c")
    running.registry.limits.set_store(NAS, jobs=3)
    assert bells(running, shares) == ["c"]
    assert store(running).waiting == 1, "d"


def test_nobody_is_let_out_of_a_crowd_twice(running):
    """As two coordinators may try that have both seen it there; and one that was paused meanwhile is in no line."""
    ring(running)
    running.registry.verbs.pause("d")
    names = [keys.crowd(NAS), keys.ready(BETA), keys.ready(BETA)]
    words = [BETA, C.id, BETA, D.id]
    before = running.client.zscore(keys.ready(BETA), C.id)
    answers = [running.registry.limits._scripts.call("admit", names, words)[1] for _ in range(2)]
    assert answers == [1, 0]
    assert 0 < running.client.zscore(keys.ready(BETA), C.id) < before
    assert running.client.zscore(keys.ready(BETA), D.id) is None
    assert store(running).waiting == 0


def test_a_share_for_one_that_has_ended_or_has_it_already_changes_nothing(running):
    ring(running)
    running.claim(A)
    before = dump(running.client)
    running.registry.limits.limit({(ALPHA, A.id): 0, (ALPHA, B.id): 50, (ALPHA, JobId("gone")): 50})
    assert dump(running.client) == before


def test_a_host_is_limited_by_name_and_once(running):
    running.registry.hosts.judge(ALPHA, "up")
    limits = running.registry.limits
    assert [limits.set_host(ALPHA, speed, by="me") for speed in (60, 60, 0)] == [0, 60, 60]
    assert limits.host_speeds() == {ALPHA: 0}
    assert len(running.events("HOST_LIMITED")) == 2
    with pytest.raises(errors.HostDown, match="is not known"):
        limits.set_host("nobody", 1)


def test_the_share_travels_beside_the_users_own_speed(running):
    running.registry.limits.set_store(NAS, jobs=0, speed=60)
    assert ring(running) == ["a", "b", "free", "c", "d"]
    claim = running.claim(A)
    assert claim.speed == 60, "all of it, as long as it is alone"
    other = running.claim(C)
    attempts = running.host(ALPHA).attempts
    attempts.wait(A.id, 1)
    BudgetDivider(running.registry).look()
    assert attempts.wait(A.id, 1), "whoever runs is told at once"
    assert attempts.checkpoint(claim, Progress(0, SIZE)).speed == 30
    running.registry.verbs.set_speed("a", 10)
    assert attempts.checkpoint(claim, Progress(0, SIZE)).speed == 10
    running.registry.verbs.set_speed("a", 40)
    assert attempts.checkpoint(claim, Progress(0, SIZE)).speed == 30
    job = running.registry.views.job("a")
    assert (job.speed, job.limit, job.slowed) == (40, 30, True)
    running.finish(other)
    BudgetDivider(running.registry).look()
    assert attempts.checkpoint(claim, Progress(0, SIZE)).speed == 40
    running.registry.limits.set_store(NAS, speed=0)
    running.registry.verbs.set_speed("a", 0)
    BudgetDivider(running.registry).look()
    assert attempts.checkpoint(claim, Progress(0, SIZE)).speed == 0


def test_whoever_is_to_have_more_gets_it_when_those_who_are_to_have_less_have_heard(running):
    limits, mib = running.registry.limits, 1 << 20
    limits.set_store(NAS, jobs=0, speed=60 * mib)
    shares = BudgetDivider(running.registry)
    shares.look()
    claims = {}
    for job in (A, C):
        bells(running, shares, job.host, slots=1)
        claims[job.id] = running.claim(job)
    assert [claim.speed for claim in claims.values()] == [60 * mib, PAUSED], "what is left, and a little"

    def told(job):
        return running.host(job.host).attempts.checkpoint(claims[job.id], Progress(0, SIZE)).speed

    shares = BudgetDivider(running.registry)
    shares.look()
    assert told(C) == PAUSED
    assert shares.patience_ms(60_000) < 30_000, "it asks again soon, whatever happens"
    assert told(A) == 30 * mib
    BudgetDivider(running.registry).look()
    assert told(C) == 30 * mib


class Campaign:
    """Attempts that come, end, die and are paused, doorbells that are lost, limits that change, all by chance."""

    def __init__(self, fleet, seed):
        self.fleet, self.chance = fleet, random.Random(seed)  # noqa: S311 - no secret
        self.jobs = {
            f"j{n}": spec(f"j{n}", host=self.chance.choice((ALPHA, BETA)), store=NAS, txn=f"{RUN}.j{n}")
            for n in range(12)
        }
        self.claims, self.done, self.rung, self.turn = {}, set(), [], 0
        fleet.registry.limits.set_store(NAS, path="/mnt", jobs=3)
        fleet.registry.submit.submit(grouped(*self.jobs.values()))
        for job in self.jobs.values():
            fleet.walk(job.transaction, Step.RUN)

    def step(self):
        self.turn += 1
        actions = (self.ring, self.ring, self.claim, self.claim, self.finish, self.release, self.pause, self.limit)
        self.chance.choice(actions)()

    def ring(self):
        self.rung += ring(self.fleet, slots=self.chance.randrange(1, 5), lost=self.chance.choice((0, 30_000)))

    def claim(self):
        """By any doorbell that ever rang."""
        if self.rung:
            job = self.jobs[self.chance.choice(self.rung)]
            found = self.fleet.host(job.host).attempts.claim(job.id, who(f"t{self.turn}"))
            if not isinstance(found, str):
                self.claims[job.id] = found

    def finish(self):
        if self.claims:
            claim = self.claims.pop(self.chance.choice(sorted(self.claims)))
            self.fleet.finish(claim)
            self.done.add(claim.spec.id)

    def release(self):
        if self.claims:
            claim = self.claims.pop(self.chance.choice(sorted(self.claims)))
            job = claim.spec
            why = self.chance.choice(("parked", "drained"))
            self.fleet.host(job.host).attempts.release(job.id, job.transaction, claim.token, claim.attempt, why=why)

    def pause(self):
        job = self.chance.choice(sorted(self.jobs))
        if job not in self.claims and job not in self.done:
            held = "user" in self.fleet.registry.views.job(job).holds
            (self.fleet.registry.verbs.resume if held else self.fleet.registry.verbs.pause)(job)

    def limit(self):
        self.fleet.registry.limits.set_store(NAS, jobs=self.chance.choice((2, 3)))

    def end(self):
        """All that is held goes on, and whoever is rung for comes and finishes."""
        for job in self.jobs.keys() - self.done:
            if "user" in self.fleet.registry.views.job(job).holds:
                self.fleet.registry.verbs.resume(job)
        for _ in range(50):
            while self.claims:
                self.finish()
            for name in ring(self.fleet, lost=0):
                self.claims[name] = self.fleet.claim(self.jobs[name])
            assert len(self.claims) <= 3


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_no_more_run_than_the_store_takes_and_nobody_waits_for_ever(fleet, seed):
    campaign = Campaign(fleet, seed)
    for _ in range(400):
        campaign.step()
        assert len(campaign.claims) <= 3
    campaign.end()
    assert campaign.done == campaign.jobs.keys()
    BudgetDivider(fleet.registry).look()
    assert (store(fleet).running, store(fleet).waiting) == (0, 0)
