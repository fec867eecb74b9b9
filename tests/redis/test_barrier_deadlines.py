"""The deadline of a barrier counts from a host's last answer: a host that answers batch after batch is not late."""

from __future__ import annotations

import pytest
import redis
from puppets import ALPHA, BETA, RUN, spec

from blockjobs.daemons import finalizer
from blockjobs.model.barriers import Step
from blockjobs.model.hanging import HangingPath
from blockjobs.model.runs import RunPlan
from blockjobs.process.clock import Every

STEPS = [Step.OPEN, Step.CUT, Step.PREPARE]


class Clock:
    """The clock of the finalizer, which goes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Bell:
    """A doorbell that counts."""

    def __init__(self):
        self.rung = []

    def step(self, host, step, _txn):
        self.rung.append((host, step))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(finalizer, "seconds_since_boot", clock)
    return clock


@pytest.fixture
def mine(fleet):
    fleet.registry.memory.note_restart(fleet.registry.hosts.run_id(), [])
    return finalizer.Finalizer(fleet.registry, Bell(), _each_look=Every(0))


def waiting_at(fleet, mine, step, *jobs):
    """A transaction of these jobs, whose hosts owe this step, and have been asked for it."""
    fleet.submit(*jobs)
    if step is Step.PREPARE:
        fleet.walk(RUN, Step.RUN)
        fleet.copy(*jobs)
    fleet.walk(RUN, step)
    mine.once()
    assert {host for host, asked in mine.doorbell.rung if asked is step} == {job.host for job in jobs}


def pass_time(mine, clock, seconds):
    """Time passes in which the finalizer is there, and hears Redis."""
    while seconds > 0:
        clock.now += min(seconds, 2.0)
        mine._notice_absence(clock.now)
        seconds -= 2.0


def turn_until_all_are_over(mine):
    mine.once()
    while mine._under_way:
        mine._collect()


def answer(fleet, step, *jobs):
    for job in jobs:
        fleet.host(job.host).answers.answer(RUN, step, [fleet._said(step, job.id)])


def failed(fleet, *jobs):
    return [job.id for job in jobs if "did not answer" in fleet.registry.views.job(job.id).error]


@pytest.mark.parametrize("step", STEPS)
def test_a_host_that_goes_on_answering_is_not_late_however_long_all_of_it_takes(fleet, mine, clock, step):
    jobs = [spec(f"j{n}") for n in range(6)]
    waiting_at(fleet, mine, step, *jobs)
    for job in jobs[:-1]:
        pass_time(mine, clock, mine.deadlines[step] - 1)
        answer(fleet, step, job)
        mine.once()
    assert failed(fleet, *jobs) == []
    answer(fleet, step, jobs[-1])
    mine.once()
    assert fleet.next(RUN) != finalizer.Do(step, frozenset({ALPHA}))


@pytest.mark.parametrize("step", STEPS)
def test_a_host_that_stops_answering_is_late_when_its_deadline_has_passed_since(fleet, mine, clock, step):
    jobs = [spec(f"j{n}") for n in range(3)]
    waiting_at(fleet, mine, step, *jobs)
    pass_time(mine, clock, mine.deadlines[step] - 1)
    answer(fleet, step, jobs[0])
    mine.once()
    pass_time(mine, clock, mine.deadlines[step] - 1)
    mine.once()
    assert failed(fleet, *jobs) == []
    pass_time(mine, clock, 2)
    mine.once()
    assert failed(fleet, *jobs) == ["j1", "j2"]


def test_a_host_that_nobody_has_judged_yet_is_heard_once_it_was_rung(fleet, mine, clock):
    waiting_at(fleet, mine, Step.OPEN, spec("a"))
    pass_time(mine, clock, 2)
    mine.once()
    answer(fleet, Step.OPEN, spec("a"))
    for _ in range(3):
        mine.once()
        clock.now += 2
    assert (ALPHA, Step.CUT) in mine.doorbell.rung


def test_that_redis_is_full_ends_the_turn_and_no_transaction_is_put_aside(fleet, mine, clock):
    """To start members is to begin something, which a full Redis does not take."""
    fleet.submit(spec("a"))
    fleet.walk(RUN, Step.START)
    fleet.registry.transactions.remind()
    fleet.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            turn_until_all_are_over(mine)
    finally:
        fleet.client.config_set("maxmemory", 0)
    assert mine.quarantine.told() == {}
    turn_until_all_are_over(mine)
    assert fleet.status("a") == "running"


@pytest.mark.parametrize("step", STEPS)
def test_a_time_in_which_redis_or_the_finalizer_was_away_is_nobody_s_delay(fleet, mine, clock, step):
    jobs = [spec(f"j{n}") for n in range(3)]
    waiting_at(fleet, mine, step, *jobs)
    pass_time(mine, clock, mine.deadlines[step] - 1)
    clock.now += 10 * mine.deadlines[step]  # no turn: nobody was heard
    mine.once()
    pass_time(mine, clock, mine.deadlines[step] - 1)
    mine.once()
    assert failed(fleet, *jobs) == []
    assert mine.doorbell.rung.count((ALPHA, step)) > 1, "it is asked again"
    pass_time(mine, clock, 2)
    mine.once()
    assert len(failed(fleet, *jobs)) == 3, "and then it is late as ever"


def test_after_an_absence_the_hosts_are_asked_again_at_once(fleet, mine, clock):
    waiting_at(fleet, mine, Step.OPEN, spec("a"))
    mine._each_look = lambda: False  # whoever looks for what waits too long comes later
    clock.now += 100
    mine.once()
    mine.once()
    assert mine.doorbell.rung == [(ALPHA, Step.OPEN)] * 2


@pytest.mark.parametrize("step", STEPS)
def test_the_answers_of_one_host_are_none_of_another(fleet, mine, clock, step):
    busy, dead = [spec(f"a{n}") for n in range(3)], [spec("b0", host=BETA)]
    waiting_at(fleet, mine, step, *busy, *dead)
    for job in busy[:2]:
        pass_time(mine, clock, mine.deadlines[step] * 0.6)
        answer(fleet, step, job)
        mine.once()
    assert failed(fleet, *busy, *dead) == ["b0"]


def test_a_host_that_goes_on_settling_is_waited_for(fleet, mine, clock):
    jobs = [spec(f"a{n}") for n in range(3)]
    waiting_at(fleet, mine, Step.OPEN, *jobs)
    fleet.registry.verbs.cancel("a0")
    mine.once()
    fleet.walk(RUN, Step.SETTLE)
    mine.once()
    for job in jobs:
        pass_time(mine, clock, mine.deadlines[Step.SETTLE] - 1)
        mine.once()
        assert mine._late(RUN, Step.SETTLE) == frozenset()
        answer(fleet, Step.SETTLE, job)
        mine.once()


@pytest.fixture
def night(fleet, mine):
    """A transaction for each of many jobs of one host, all of which were asked to open."""
    jobs = [spec(f"j{n}", txn=f"{RUN}.j{n}") for n in range(40)]
    plan = RunPlan(RUN, "nightly", grouped=False, transactions=tuple((job,) for job in jobs))
    fleet.registry.submit.submit(plan)
    mine.once()
    return jobs


def opened(fleet, mine, clock, jobs, seconds):
    """So long the host opens one after the other, twice within the deadline of each."""
    until = clock.now + seconds
    while clock.now < until:
        pass_time(mine, clock, mine.deadlines[Step.OPEN] / 2)
        job = jobs.pop(0)
        fleet.host(job.host).answers.answer(job.transaction, Step.OPEN, [fleet._said(Step.OPEN, job.id)])
        mine.once()


def test_a_host_that_is_at_work_for_other_transactions_is_not_late_for_the_last_one(fleet, mine, clock, night):
    opened(fleet, mine, clock, night, 9 * mine.deadlines[Step.OPEN])
    assert failed(fleet, *night) == []
    pass_time(mine, clock, mine.deadlines[Step.OPEN] + 1)  # now it answers nobody any more
    mine.once()
    assert failed(fleet, *night) == [job.id for job in night]


def test_a_transaction_that_was_long_at_a_step_makes_room_for_others_before_the_next_one(
    fleet, mine, clock, monkeypatch
):
    fleet.submit(spec("a"))
    fleet.walk(RUN, Step.RUN)
    fleet.copy(spec("a"))

    def slow():
        """A clock by which everything takes longer than a turn may."""
        clock.now += finalizer.TURN + 0.1
        return clock.now

    monkeypatch.setattr(finalizer, "seconds_since_boot", slow)
    turn_until_all_are_over(mine)
    assert fleet.next(RUN) == finalizer.Do(Step.PREPARE, frozenset({ALPHA})), "one step was done, and no other"
    assert mine.doorbell.rung == []
    turn_until_all_are_over(mine)
    assert mine.doorbell.rung == [(ALPHA, Step.PREPARE)]


def test_a_transaction_that_hangs_is_late_though_its_host_answers_for_others(fleet, mine, clock, night):
    hangs = night.pop()
    told = HangingPath(path="/backup", point="/backup", about="OPEN", transaction=hangs.transaction)
    fleet.registry.hosts.beat(hangs.host, "machine", 2, {"hanging": [told.to_dict()]})
    opened(fleet, mine, clock, night, 2 * mine.deadlines[Step.OPEN])
    assert failed(fleet, hangs, *night) == [hangs.id]


@pytest.mark.parametrize("hanging", [False, True])
def test_a_transaction_that_its_host_never_comes_to_ends_after_some_deadlines(fleet, mine, clock, night, hanging):
    never = night.pop()
    if hanging:
        told = HangingPath(path="/other", point="/other", about="OPEN", transaction="another")
        fleet.registry.hosts.beat(never.host, "machine", 2, {"hanging": [told.to_dict()]})
    times = finalizer.EXCUSED_WHILE_HANGING if hanging else finalizer.EXCUSED
    opened(fleet, mine, clock, night, times * mine.deadlines[Step.OPEN])
    assert failed(fleet, never) == []
    opened(fleet, mine, clock, night, mine.deadlines[Step.OPEN])
    assert failed(fleet, never) == [never.id]
