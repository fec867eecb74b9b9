"""On a Redis that is full what was begun comes to its end: every script that begins nothing goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from puppets import ALPHA, RUN, SIZE, Fleet, dump, grouped, spec

from blockjobs.ask.doorbell import Doorbell
from blockjobs.model.barriers import Decide, Step
from blockjobs.model.ids import RunId, TxnId
from blockjobs.model.liveness import WorkerName
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.runs import RunPlan
from blockjobs.registry import keys, scripts
from blockjobs.registry.attempts import Claim, Progress

JOB = spec("a")
TXN = TxnId(RUN)
URL = "https://example.com"
Story = Iterator[None]


def opening(fleet: Fleet) -> None:
    """Its host is asked to open it."""
    fleet.submit(JOB)
    fleet.walk(RUN, Step.OPEN)


def running(fleet: Fleet, **options: Any) -> Claim:
    """An attempt has it."""
    fleet.submit(job := spec("a", **options))
    fleet.walk(RUN, Step.RUN)
    fleet.registry.hosts.ring(ALPHA, 2, lost_after_ms=1000)
    return fleet.claim(job)


def copied(fleet: Fleet, comes: Any) -> None:
    """Its copy is done, and this comes next."""
    fleet.finish(running(fleet))
    fleet.walk(RUN, comes)


def ended(fleet: Fleet, **fields: Any) -> RunId:
    fleet.registry.submit.submit(replace(grouped(JOB), fields=RunFields(**fields)))
    fleet.walk(RUN, Step.RUN)
    fleet.copy(JOB)
    fleet.walk(RUN)
    return RunId(RUN)


# --- of each script: what is there while Redis has room, and the call when it is full ------------------------------


def checkpoint(fleet: Fleet) -> Story:
    claim = running(fleet)
    yield
    fleet.host(ALPHA).attempts.checkpoint(claim, Progress(1, SIZE))


def ready(fleet: Fleet) -> Story:
    claim = running(fleet)
    yield
    fleet.host(ALPHA).attempts.ready(claim, Progress(1, SIZE))


def diverge(fleet: Fleet) -> Story:
    claim = running(fleet)
    yield
    fleet.host(ALPHA).attempts.diverging(claim, passes=5, dirty_rate=1, copy_rate=1)


def error(fleet: Fleet) -> Story:
    claim = running(fleet)
    yield
    fleet.host(ALPHA).attempts.error(claim, 1, operation="read", action="stop", io_status="failed", text="EIO")


def stall(fleet: Fleet) -> Story:
    claim = running(fleet)
    yield
    fleet.host(ALPHA).attempts.stalled(claim, 600)


def finish(fleet: Fleet) -> Story:
    claim = running(fleet)
    yield
    fleet.finish(claim)


def release(fleet: Fleet) -> Story:
    claim = running(fleet)
    yield
    assert fleet.host(ALPHA).attempts.release(JOB.id, TXN, claim.token, claim.attempt, why="dead")


def fence(fleet: Fleet) -> Story:
    claim = running(fleet)
    yield
    assert fleet.registry.hosts.fence(ALPHA, JOB.id, claim.attempt)


def vacate(fleet: Fleet) -> Story:
    fleet.registry.limits.set_store("nas", path="/mnt", jobs=1, speed=0)
    claim = running(fleet, store="nas")
    yield
    fleet.registry.limits.vacate(ALPHA, JOB.id, claim.attempt, "nas", away=True)


def beat(fleet: Fleet) -> Story:
    yield
    fleet.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {})


def merge(fleet: Fleet) -> Story:
    fleet.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {})
    yield
    fleet.registry.events.merge([ALPHA])


def answer(fleet: Fleet) -> Story:
    opening(fleet)
    yield
    fleet.answer(ALPHA, TXN, Step.OPEN)


def due(fleet: Fleet) -> Story:
    opening(fleet)
    fleet.answer(ALPHA, TXN, Step.OPEN)
    yield
    fleet.due()


def bell(fleet: Fleet) -> Story:
    yield
    assert fleet.registry.bells.note(ALPHA, Step.OPEN, TXN)


def barrier(fleet: Fleet) -> Story:
    opening(fleet)
    yield
    fleet.registry.transactions.barrier(TXN, Step.OPEN)


def fail(fleet: Fleet) -> Story:
    opening(fleet)
    yield
    fleet.registry.transactions.fail(fleet.view(TXN), ALPHA, Step.OPEN, 110, "it is late")


def abandon(fleet: Fleet) -> Story:
    opening(fleet)
    yield
    assert fleet.registry.transactions.abandon(ALPHA) == 1


def cancel(fleet: Fleet) -> Story:
    opening(fleet)
    yield
    fleet.registry.verbs.cancel("a")


def pend(fleet: Fleet) -> Story:
    copied(fleet, Step.PEND)
    yield
    fleet.advance(TXN)


def settle(fleet: Fleet) -> Story:
    copied(fleet, Decide)
    yield
    fleet.advance(TXN)


def stop(fleet: Fleet) -> Story:
    opening(fleet)
    fleet.sick = {(Step.OPEN, "a"): (5, "EIO")}
    fleet.walk(RUN, Step.STOP)
    yield
    fleet.advance(TXN)


def conclude(fleet: Fleet) -> Story:
    copied(fleet, Step.CONCLUDE)
    yield
    fleet.advance(TXN)


def close(fleet: Fleet) -> Story:
    ended(fleet)
    yield
    fleet.close(TXN)


def retry(fleet: Fleet) -> Story:
    job = spec(f"{RUN}.a", txn=f"{RUN}.each.a")
    fields = RunFields(policies={"each": Policy(grouped=False, retry=2)})
    fleet.registry.submit.submit(RunPlan(RunId(RUN), "nightly", grouped=False, transactions=((job,),), fields=fields))
    fleet.walk(job.transaction, Step.RUN)
    fleet.finish(fleet.claim(job), errno=5, text="EIO")
    fleet.walk(job.transaction, Step.SETTLE)
    fleet.advance(job.transaction)
    yield
    fleet.advance(job.transaction)


def remind(fleet: Fleet) -> Story:
    opening(fleet)
    yield
    fleet.registry.transactions.remind()


def dismiss(fleet: Fleet) -> Story:
    ended(fleet)
    yield
    fleet.registry.verbs.dismiss("a")


def judge(fleet: Fleet) -> Story:
    yield
    fleet.registry.hosts.judge(ALPHA, "up")


def alive(fleet: Fleet) -> Story:
    yield
    fleet.registry.hosts.daemon_beat("finalizer")


def clock(fleet: Fleet) -> Story:
    yield
    fleet.registry.clock.compare("boot", 5)


def restart(fleet: Fleet) -> Story:
    yield
    fleet.registry.memory.note_restart("a run id", [ALPHA])


def notice_add(fleet: Fleet) -> Story:
    run = ended(fleet)
    yield
    assert fleet.registry.notices.announce(run, {}, [("success", URL)])


def notice_take(fleet: Fleet) -> Story:
    run = ended(fleet)
    fleet.registry.notices.announce(run, {}, [("success", URL)])
    yield
    assert fleet.registry.notices.take(run, 0, "me", lease=1)


def notice_done(fleet: Fleet) -> Story:
    run = ended(fleet)
    fleet.registry.notices.announce(run, {}, [("success", URL)])
    mine = fleet.registry.notices.take(run, 0, "me", lease=1)
    assert mine is not None
    yield
    assert fleet.registry.notices.again(mine, 5, "it is away")


def prune(fleet: Fleet) -> Story:
    run = ended(fleet, policies={"": Policy(keep={"last": 1})})
    (target,) = fleet.registry.history.targets([fleet.registry.views.run(run)])
    yield
    fleet.registry.history.leave(target, "in the way")


STORIES: dict[str, Callable[[Fleet], Story]] = {
    story.__name__: story
    for story in (
        checkpoint, ready, diverge, error, stall, finish, release, fence, vacate, beat, merge, answer, due, bell,
        barrier, fail, abandon, cancel, pend, settle, stop, conclude, close, retry, remind, dismiss, judge, alive,
        clock, restart, notice_add, notice_take, notice_done, prune,
    )
}  # fmt: skip


@pytest.fixture
def fleet(client):
    yield Fleet(client)
    client.config_set("maxmemory", 0)


@pytest.mark.parametrize("script", STORIES)
def test_what_ends_something_goes_through_on_a_full_redis(fleet, script):
    (story := STORIES[script](fleet)).__next__()
    fleet.client.config_set("maxmemory", 1)
    before = dump(fleet.client)
    assert next(story, "over") == "over"
    assert dump(fleet.client) != before


def test_a_bell_is_rung_on_a_full_redis(fleet, server):
    fleet.client.config_set("maxmemory", 1)
    Doorbell(server.url).step(ALPHA, Step.SETTLE, TXN)
    assert fleet.client.llen(keys.queue(ALPHA, WorkerName.STEPS)) == 1


def test_what_begins_something_is_refused_on_a_full_redis(fleet):
    """The control."""
    fleet.client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        fleet.submit(JOB)
    assert dump(fleet.client) == {}


def test_every_script_that_may_write_to_a_full_redis_has_its_story():
    assert {name for name in scripts.NAMES if "allow-oom" in scripts.script_source(name).partition("\n")[0]} == {
        *STORIES
    }
