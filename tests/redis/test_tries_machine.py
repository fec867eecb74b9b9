"""Jobs that are tried again, with everybody late and in any order: no try meddles with another, and all of them end."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from puppets import ALPHA, BETA, RUN, SIZE, Fleet, dump, spec

from blockjobs.daemons.deadlines import Deadlines
from blockjobs.model import errors
from blockjobs.model.barriers import Step
from blockjobs.model.ids import RunId
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.runs import RunPlan
from blockjobs.model.states import Status
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress
from blockjobs.registry.connection import connect_client

JOBS = tuple(spec(f"{RUN}.{name}", host=host, txn=f"{RUN}.each.{name}") for name, host in (("a", ALPHA), ("b", BETA)))
RETRY = 2
STEPS = ("open", "cut", "prepare", "settle")


class Story:
    """Two jobs, and everything that anybody remembers of their transactions."""

    def __init__(self, client):
        client.flushall()
        self.fleet = Fleet(client)
        self.registry = self.fleet.registry
        fields = RunFields(policies={"each": Policy(grouped=False, retry=RETRY, retry_wait=3600)}, deadline=3600)
        run = RunPlan(RunId(RUN), "nightly", False, tuple((job,) for job in JOBS), fields)  # noqa: FBT003
        self.registry.submit.submit(run)
        self.views, self.claims, self.over = [], [], []

    def place(self, n):
        return self.registry.views.place(JOBS[n].id)

    # --- what may happen, to job n, by a number --------------------------------------------------------------

    def advance(self, n, many):
        """A finalizer is at work; what it saw before each step, another one may have seen, too, and act on it later."""
        for _ in range(1 + many % 6):
            txn = self.place(n).transaction
            if (view := self.registry.transactions.view(txn)) is not None:
                self.views.append(view)
                self.fleet.advance(txn, view)

    def fail(self, n, _):
        """All the way to the next try, or to the end."""
        tries = self.registry.views.job(JOBS[n].id).tries
        self.begin(n, 0)
        self.resume(n, 0)
        self.advance(n, 2)
        self.claim(n, 0)
        for claim in [claim for claim in self.claims if claim.spec.id == JOBS[n].id]:
            self.claims.remove(claim)
            self.over.append(claim)
            self.fleet.finish(claim, errno=5, text="it broke")
        self.advance(n, 5)
        if self.registry.views.job(JOBS[n].id).tries > tries:
            event("a job was brought to its next try")

    def advance_late(self, _, which):
        """A finalizer that was held up does what it thought of long ago."""
        if self.views:
            view = self.views[which % len(self.views)]
            self.fleet.advance(view.txn, view)

    def answer_late(self, n, which):
        """A host that was held up answers a step for a transaction of long ago, having read its members then."""
        if self.views:
            view = self.views[which % len(self.views)]
            (host,) = view.shares
            job = next(job for job in JOBS if job.host == host)
            live = self.registry.views.job(job.id).claimed
            step = STEPS[n + which % 3]
            if step == "settle" and view.decision is None:  # it asks before it does that
                return
            if view.txn != self.place(JOBS.index(job)).transaction or not live:
                self.fleet.host(host).answers.answer(view.txn, step, [self.fleet._said(step, job.id)])

    def sicken(self, n, which):
        """Its host can do something no more, or again."""
        fault = (STEPS[which % 3], JOBS[n].id)
        if self.fleet.sick.pop(fault, None) is None:
            self.fleet.sick[fault] = (5, "it is sick")

    def claim(self, n, _):
        job = self.registry.views.job(JOBS[n].id)
        if job.status is Status.RUNNING and not job.claimed and not job.cancelled and not job.holds:
            self.claims.append(self.fleet.claim(JOBS[n]))

    def finish(self, n, failed):
        if self.claims:
            claim = self.claims.pop(n % len(self.claims))
            self.over.append(claim)
            self.fleet.finish(claim, errno=5 if failed % 3 else 0, text="it broke")

    def finish_late(self, _, which):
        """The reply was lost, and the attempt says it once more."""
        if self.over:
            claim = self.over[which % len(self.over)]
            attempts = self.fleet.host(claim.spec.host).attempts
            try:
                attempts.finish(claim, Progress(SIZE, SIZE), durable=None, result={}, errno=5, text="late")
            except errors.LeaseLost:
                event("an attempt of an earlier try was told so")

    def begin(self, n, _):
        """The hour is over."""
        for txn in self.fleet.client.zrange(keys.retries(), 0, -1):
            self.fleet.client.zadd(keys.retries(), {txn: 1})
        Deadlines(self.registry).look(self.registry.clock.now())

    def cancel(self, n, seldom):
        if seldom % 8 == 0:
            self.quietly(lambda: self.registry.verbs.cancel(JOBS[n].id))

    def pause(self, n, _):
        self.quietly(lambda: self.registry.verbs.pause(JOBS[n].id))

    def resume(self, n, _):
        self.quietly(lambda: self.registry.verbs.resume(JOBS[n].id))

    def deadline(self, n, seldom):
        if seldom % 16 == 0:
            self.registry.timeouts.call_off_run(RunId(RUN), "it is late")

    @staticmethod
    def quietly(verb):
        with suppress(errors.Refused):
            verb()

    # --- what is true at every moment ------------------------------------------------------------------------

    def check(self):
        jobs = list(self.registry.views.jobs(self.registry.views.places(RUN)))
        at = {job.id: str(job.status) for job in jobs}
        assert self.fleet.replayed() == at
        run = self.registry.views.run(RUN)
        assert run.open == sum(job.status is not Status.CONCLUDED for job in jobs)
        assert run.retried == sum(job.tries - 1 for job in jobs) <= RETRY * len(JOBS)
        now = {job.transaction for job in jobs}
        assert {job.spec.transaction for job in jobs} == now
        there = {key for key in dump(self.fleet.client) if key.startswith("bj:txn:") or ":share:" in key}
        assert {key.removesuffix(":order").rpartition(":")[2] for key in there} <= now
        for job in jobs:
            view = self.registry.transactions.view(job.transaction)
            share = view.shares[job.host]
            if job.status is not Status.CONCLUDED:
                assert share.owing[Step.SETTLE] == (job.passed != "settle")
                assert share.owing[Step.CONCLUDE] == 1
                assert (share.failed > 0) is (job.status is Status.ABORTING)

    def run_out(self):
        """From wherever it is, it comes to an end, and nothing but the run's record is left in the end."""
        self.fleet.sick.clear()
        for _ in range(200):
            if not self.registry.views.run(RUN).open:
                break
            self.begin(0, 0)
            for n in range(len(JOBS)):
                self.resume(n, 0)
                while self.claims:
                    self.finish(0, n)
                self.advance(n, 3)
                self.claim(n, 0)
        else:
            raise AssertionError("it does not end")
        told = Counter(event.name for event in self.registry.events.all() if event.id == RUN)
        assert told["RUN_ENDED"] == 1
        for job in self.registry.views.jobs(self.registry.views.places(RUN)):
            self.fleet.close(job.transaction)
        run = self.registry.views.run(RUN)
        event(f"{run.retried} further tries, {run.failed} failed, {run.cancelled} cancelled")
        self.registry.retention.forget(self.registry.hosts.now() + 1, keep_ms=0)
        assert not [key for key in dump(self.fleet.client) if RUN in key]


ACTIONS = [
    Story.advance, Story.advance, Story.fail, Story.fail, Story.advance_late, Story.advance_late, Story.advance_late,
    Story.answer_late, Story.answer_late, Story.sicken, Story.claim, Story.finish, Story.finish_late, Story.begin,
    Story.cancel, Story.pause, Story.resume, Story.deadline,
]  # fmt: skip
MOVES = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1), st.integers(0, 63)), min_size=5, max_size=60)


def test_no_try_meddles_with_another_and_all_come_to_an_end(server, long):
    # A story that fails is told as it is: to shorten it takes longer than a test may.
    @settings(max_examples=1000 if long else 50, deadline=None, phases=[Phase.reuse, Phase.generate])
    @given(MOVES)
    def play(moves):
        with connect_client(server.url) as client:
            story = Story(client)
            for act, n, number in moves:
                act(story, n, number)
                story.check()
            story.run_out()

    play()


def test_the_story_itself_can_lose_a_try(fleet):
    """The control: what a late finalizer did to a job that was not looked at would be seen."""
    story = Story(fleet.client)
    fleet.client.hincrby(keys.tally(ALPHA, JOBS[0].transaction), "settle", -1)
    try:
        story.check()
    except AssertionError:
        return
    raise AssertionError("a step that nobody answered went unnoticed")
