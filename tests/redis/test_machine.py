"""Any order of verbs, attempts and steps: Redis does what a small model says, and what it counts is what there is."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from puppets import ALPHA, BETA, RUN, SIZE, Fleet, spec

from blockjobs.model import errors
from blockjobs.model.barriers import Decision, Finished, Step
from blockjobs.model.states import ACCEPTS, STARTED, Verb
from blockjobs.registry import keys
from blockjobs.registry.attempts import POISON, Claim, Progress

JOBS = {job.id: job for job in (spec("a"), spec("b", host=BETA, auto_finalize=False), spec("c"))}
NAMES = st.sampled_from(sorted(JOBS))
REASONS = st.sampled_from(["user", "drain"])
PASSED = ("", "open", "cut", "run", "prepare", "settle")  # in this order, and from anywhere to settle


@dataclass
class Model:
    """What a verb or an attempt should find and leave behind.  Steps of the finalizer are taken over from Redis."""

    status: str = "created"
    holds: set[str] = field(default_factory=lambda: {"created"})
    claim: Claim | None = None
    lost: int = 0
    cancelled: bool = False
    ended_by_itself: bool = False  # with an error of its own

    @property
    def queued(self) -> bool:
        return self.status == "running" and self.claim is None

    def accepts(self, verb: Verb) -> bool:
        return self.status in ACCEPTS[verb]


class Machine(RuleBasedStateMachine):
    client = None  # set by the test

    @initialize(begins=st.sampled_from(["created", "running", "copying", "waiting"]))
    def begin(self, begins):
        """Not every story begins at the beginning, or few would come to their end."""
        self.client.flushall()
        self.fleet = Fleet(self.client)
        self.fleet.submit(*JOBS.values())
        if begins != "created":
            self.fleet.walk(RUN, Step.RUN)
        if begins == "waiting":
            self.fleet.copy(*JOBS.values())
        status = "running" if begins == "copying" else begins
        self.jobs = {name: Model(status, {"created"} if begins == "created" else set()) for name in JOBS}
        if begins == "copying":
            self.claim_all()
        self.over = False
        self.finalized = False

    @property
    def decision(self):
        return self.fleet.view(RUN).decision

    def expect(self, accepted, call):
        if accepted:
            return call()
        with pytest.raises(errors.Refused):
            call()
        return None

    # --- verbs ------------------------------------------------------------------------------------------

    @rule(name=NAMES, reason=REASONS)
    def pause(self, name, reason):
        job = self.jobs[name]
        accepted = job.accepts(Verb.PAUSE) and reason not in job.holds
        self.expect(accepted, lambda: self.fleet.registry.verbs.pause(name, reason=reason))
        if accepted:
            job.status = "paused" if job.queued else job.status
            job.holds.add(reason)

    @rule(name=NAMES, reason=REASONS)
    def resume(self, name, reason):
        job = self.jobs[name]
        accepted = job.accepts(Verb.RESUME) and reason in job.holds
        self.expect(accepted, lambda: self.fleet.registry.verbs.resume(name, reason=reason))
        if accepted:
            job.holds.discard(reason)
            if job.status == "paused" and not job.holds and job.claim is None:
                job.status = "running"

    @rule(name=NAMES)
    def cancel(self, name):
        job = self.jobs[name]
        accepted = job.accepts(Verb.CANCEL) and self.decision is None
        self.expect(accepted, lambda: self.fleet.registry.verbs.cancel(name))
        if accepted:
            job.cancelled = True
            job.status = job.status if job.claim else "aborting"

    @rule(name=NAMES, speed=st.integers(-1, 5))
    def set_speed(self, name, speed):
        accepted = self.jobs[name].accepts(Verb.SET_SPEED) and speed >= 0
        self.expect(accepted, lambda: self.fleet.registry.verbs.set_speed(name, speed))

    @rule(name=NAMES)
    def finalize(self, name):
        accepted = self.jobs[name].accepts(Verb.FINALIZE) and self.decision is None and not self.finalized
        self.expect(accepted, lambda: self.fleet.registry.verbs.finalize(name))
        self.finalized |= accepted

    @rule(name=NAMES)
    def dismiss(self, name):
        job = self.jobs[name]
        self.expect(job.accepts(Verb.DISMISS), lambda: self.fleet.registry.verbs.dismiss(name))
        if job.accepts(Verb.DISMISS):
            job.status = "null"
            job.holds.clear()

    # --- attempts ---------------------------------------------------------------------------------------

    @rule(name=NAMES)
    def claim(self, name):
        job = self.jobs[name]
        if job.queued and not job.cancelled:
            job.claim = self.fleet.claim(JOBS[name])
        else:
            with pytest.raises(AssertionError):
                self.fleet.claim(JOBS[name])

    def claim_all(self):
        for name, job in self.jobs.items():
            if job.queued and not job.cancelled:
                job.claim = self.fleet.claim(JOBS[name])

    @rule()
    def fill_every_slot(self):
        self.claim_all()

    def held(self, n):
        """One of the jobs with a live attempt."""
        job = [job for job in self.jobs.values() if job.claim][n % sum(bool(job.claim) for job in self.jobs.values())]
        return job, job.claim, self.fleet.host(job.claim.spec.host).attempts

    @precondition(lambda self: any(job.claim for job in self.jobs.values()))
    @rule(n=st.integers(0, 2), quiet=st.booleans())
    def checkpoint(self, n, quiet):
        job, claim, attempts = self.held(n)
        orders = attempts.checkpoint(claim, Progress(1, SIZE), quiet=quiet)
        assert (orders.cancel, orders.pause) == (job.cancelled, bool(job.holds))
        if job.holds and quiet and not job.cancelled:
            job.status = "paused"
        elif not job.holds:
            job.status = "running"

    @precondition(lambda self: any(job.claim for job in self.jobs.values()))
    @rule(n=st.integers(0, 2), failed=st.booleans())
    def finish(self, n, failed):
        job, claim, _ = self.held(n)
        self.fleet.finish(claim, errno=5 if failed else 0, text="EIO")
        job.claim = None
        job.holds.clear()  # one that came as the job finished holds nothing
        job.ended_by_itself = failed
        job.status = "aborting" if failed or job.cancelled else "waiting"

    @precondition(lambda self: any(job.claim for job in self.jobs.values()))
    @rule(n=st.integers(0, 2), why=st.sampled_from(["parked", "dead", "fenced"]))
    def release(self, n, why):
        job, claim, attempts = self.held(n)
        assert attempts.release(claim.spec.id, RUN, claim.token, claim.attempt, why=why)
        job.claim = None
        job.lost += why != "parked"
        if job.cancelled or job.lost >= POISON:
            job.ended_by_itself = not job.cancelled
            job.status = "aborting"
        else:
            job.status = "paused" if job.holds else "running"
        with pytest.raises(errors.LeaseLost):
            attempts.checkpoint(claim, Progress(1, SIZE), quiet=True)

    # --- the finalizer and the hosts --------------------------------------------------------------------

    @precondition(lambda self: not self.over)
    @rule(times=st.integers(1, 4))
    def advance(self, times):
        for _ in range(times):
            if isinstance(self.fleet.advance(RUN), Finished):
                self.over = True
                self.fleet.close(RUN)
                break
        for name, job in self.jobs.items():
            if job.status != "null":
                view = self.fleet.registry.views.job(name)
                job.status, job.cancelled, job.holds = str(view.status), view.cancelled, set(view.holds)

    # --- what is true at every moment -------------------------------------------------------------------

    @invariant()
    def every_job_is_where_the_model_and_the_events_have_it(self):
        there = {name: job.status for name, job in self.jobs.items() if job.status != "null"}
        assert {name: self.fleet.status(name) for name in there} == there
        assert self.fleet.replayed() == there
        for name in there:
            view = self.fleet.registry.views.job(name)
            assert (set(view.holds), view.claimed) == (self.jobs[name].holds, self.jobs[name].claim is not None)

    @invariant()
    def who_waits_for_a_slot_is_in_the_queue_and_nobody_else(self):
        queues = [self.client.zrange(keys.ready(host), 0, -1) for host in (ALPHA, BETA)]
        assert sorted(n.decode() for q in queues for n in q) == [n for n, job in self.jobs.items() if job.queued]
        claims = [[each.job for each in self.fleet.host(host).attempts.live()] for host in (ALPHA, BETA)]
        assert sorted(n for c in claims for n in c) == [n for n, job in self.jobs.items() if job.claim]

    @invariant()
    def what_a_share_counts_is_what_its_members_owe(self):
        if self.over:
            return
        for host in (ALPHA, BETA):
            records = {name: self.fleet.record(job) for name, job in JOBS.items() if job.host == host}
            records = {name: record for name, record in records.items() if record}  # a dismissed one owes nothing
            share = self.fleet.view(RUN).shares[host]
            at = [r["passed"] for r in records.values()]
            if self.decision is not Decision.ABORT and not any(r["status"] == "aborting" for r in records.values()):
                for step in (Step.OPEN, Step.CUT, Step.RUN, Step.PREPARE):
                    assert share.owing[step] == sum(PASSED.index(p) < PASSED.index(step) for p in at), step
            assert share.owing[Step.SETTLE] == sum(p != "settle" for p in at)
            assert share.owing[Step.CONCLUDE] == sum(r["status"] not in ("concluded", "null") for r in records.values())

    @invariant()
    def who_may_still_be_writing_is_not_aborted_under_its_feet(self):
        assert all(job.status in STARTED for job in self.jobs.values() if job.claim)

    @invariant()
    def a_failed_or_cancelled_member_is_never_committed(self):
        if any(job.status == "aborting" or job.cancelled or job.ended_by_itself for job in self.jobs.values()):
            assert self.decision is not Decision.COMMIT

    @invariant()
    def locks_are_held_until_the_end_and_no_longer(self):
        open_ = sum(job.status not in ("concluded", "null") for job in self.jobs.values())
        assert self.client.hlen(keys.texts()) == 2 * open_
        assert self.client.hlen(keys.ids()) == sum(job.status != "null" for job in self.jobs.values())
        assert self.fleet.registry.views.run(RUN).open == open_

    def teardown(self):
        """From wherever it is, it comes to an end: nothing is stuck."""
        for job in self.jobs.values():
            if job.claim:
                self.fleet.finish(job.claim)
        if self.decision is None and self.fleet.status("a") != "aborting":
            self.fleet.registry.verbs.cancel("a")
        event(f"decided before the end: {self.decision}")
        self.fleet.walk(RUN)
        assert self.fleet.registry.views.run(RUN).open == 0


def test_whatever_happens_in_whatever_order(client, long):
    Machine.client = client
    examples, steps = (300, 40) if long else (50, 30)
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    )
