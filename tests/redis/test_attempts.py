"""One attempt at a time has a job: claims, leases, tokens, and what becomes of an attempt that is lost."""

from __future__ import annotations

import threading

import pytest
import redis
from puppets import RUN, SIZE, Fleet, dump, spec, who

from blockjobs.model import errors
from blockjobs.model.barriers import Step
from blockjobs.model.ids import Host, JobId
from blockjobs.model.jobs import Checkpoint
from blockjobs.model.liveness import WorkerName
from blockjobs.registry import codec, keys
from blockjobs.registry.attempts import POISON, Claim, Progress
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import HostRegistry
from blockjobs.registry.hosts import Lease

JOB = spec("j")
DURABLE = Checkpoint("uuid", ((0, 4096),))
COUNTS = {"read": 8192, "written": 4096}


@pytest.fixture
def fleet(client):
    """A fleet with one job that waits for a slot."""
    fleet = Fleet(client)
    fleet.submit(JOB)
    fleet.walk(JOB.transaction, Step.RUN)
    return fleet


@pytest.fixture
def attempts(fleet):
    return fleet.host(JOB.host).attempts


def release(fleet, claim, why="dead"):
    return fleet.host(JOB.host).attempts.release(JOB.id, JOB.transaction, claim.token, claim.attempt, why=why)


def standing_of(attempts):
    (claim,) = attempts.live()
    return claim.standing()


def test_of_fifty_claimants_one_gets_the_job(fleet, server):
    start = threading.Barrier(50)
    answers = []

    def claimant(number):
        with connect_client(server.url) as own:
            attempts = HostRegistry(own, JOB.host).attempts
            start.wait()
            answers.append(attempts.claim(JOB.id, who(f"a{number}")))

    threads = [threading.Thread(target=claimant, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (answer for answer in answers if isinstance(answer, Claim))
    assert sorted(answer for answer in answers if answer is not winner) == ["another attempt has it"] * 49
    assert (winner.token, winner.number) == (1, 1)
    assert fleet.record(JOB)["attempt"] == winner.attempt
    assert fleet.events("ATTEMPT_CLAIMED") == [("ATTEMPT_CLAIMED", "j")]
    assert [each.job for each in fleet.host(JOB.host).attempts.live()] == ["j"]


def test_the_same_attempt_asking_again_gets_the_same_answer_and_changes_nothing(fleet, attempts):
    first = attempts.claim(JOB.id, who("a"))
    before = dump(fleet.client)
    assert attempts.claim(JOB.id, who("a")) == first
    assert dump(fleet.client) == before
    assert attempts.claim(JOB.id, who("b")) == "another attempt has it"


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda fleet: fleet.registry.verbs.pause("j"), "it is paused"),
        (lambda fleet: fleet.registry.verbs.cancel("j"), "it is aborting"),
        (lambda fleet: fleet.copy(JOB), "it is waiting"),
        (lambda fleet: fleet.client.flushall(), "it is gone"),
    ],
    ids=["paused", "cancelled", "done", "gone"],
)
def test_a_late_doorbell_gets_the_reason_why_there_is_nothing_to_claim(fleet, attempts, prepare, why):
    prepare(fleet)
    before = dump(fleet.client)
    assert attempts.claim(JOB.id, who("late")) == why
    assert dump(fleet.client) == before


def test_a_job_that_is_not_started_yet_cannot_be_claimed(client):
    fleet = Fleet(client)
    fleet.submit(JOB)
    assert fleet.host(JOB.host).attempts.claim(JOB.id, who("a")) == "it is created"


def test_the_next_attempt_gets_a_higher_token_and_all_that_the_one_before_made_durable(fleet, attempts):
    first = fleet.claim(JOB)
    assert (first.durable, first.offset, dict(first.counts)) == (Checkpoint(), 0, {})
    attempts.checkpoint(first, Progress(4096, SIZE, COUNTS), durable=DURABLE)
    attempts.checkpoint(first, Progress(8192, SIZE, COUNTS))
    assert release(fleet, first)
    second = fleet.claim(JOB)
    assert (second.token, second.number, second.durable) == (2, 2, DURABLE)
    assert (second.offset, second.counts) == (8192, COUNTS)
    assert second.spec == JOB


SAID = {
    "checkpoint": lambda attempts, claim: attempts.checkpoint(claim, Progress(1, SIZE), durable=DURABLE),
    "error": lambda attempts, claim: attempts.error(
        claim, 1, operation="read", action="stop", io_status="failed", text="no"
    ),
    "ready": lambda attempts, claim: attempts.ready(claim, Progress(1, SIZE)),
    "diverging": lambda attempts, claim: attempts.diverging(claim, passes=5, dirty_rate=7, copy_rate=3),
    "converging": lambda attempts, claim: attempts.diverging(claim, passes=0, dirty_rate=0, copy_rate=0),
    "stalled": lambda attempts, claim: attempts.stalled(claim, 600),
    "finish": lambda attempts, claim: attempts.finish(claim, Progress(1, SIZE), durable=None, result={}),
}


@pytest.mark.parametrize("impostor", [{"token": 0}, {"token": 2}, {"attempt": "other"}, {"attempt": ""}], ids=str)
def test_nobody_but_the_holder_of_the_lease_is_listened_to(fleet, attempts, impostor):
    held = fleet.claim(JOB)
    attempts.diverging(held, passes=4, dirty_rate=7, copy_rate=3)
    other = Claim(**{name: getattr(held, name) for name in Claim.__slots__} | impostor)
    before = dump(fleet.client)
    for say in SAID.values():
        with pytest.raises(errors.LeaseLost):
            say(attempts, other)
    assert not release(fleet, other)
    assert dump(fleet.client) == before


def test_of_a_job_that_nobody_has_no_attempt_without_a_name_is_ended(fleet):
    before = dump(fleet.client)
    assert not fleet.host(JOB.host).attempts.release(JOB.id, JOB.transaction, 0, "", why="dead")
    assert not fleet.registry.hosts.fence(JOB.host, JOB.id, "")
    assert dump(fleet.client) == before


def test_the_first_error_of_the_next_attempt_counts_as_well(fleet, attempts):
    for _ in range(2):
        claim = fleet.claim(JOB)
        SAID["error"](attempts, claim)
        release(fleet, claim, "parked")
        fleet.registry.verbs.resume("j")
    assert fleet.events("BLOCK_JOB_ERROR") == [("BLOCK_JOB_ERROR", "j")] * 2


def test_a_job_began_with_its_first_attempt_and_what_hung_then_hangs_no_more(fleet, attempts):
    claim = fleet.claim(JOB)
    began = fleet.record(JOB)["started"]
    attempts.checkpoint(claim, Progress(1, SIZE), hangs=("/srv", 30.0))
    release(fleet, claim)
    while fleet.registry.hosts.now() == int(began):
        pass
    fleet.claim(JOB)
    record = fleet.record(JOB)
    assert record["started"] == began
    assert "hangs" not in record


def test_a_paused_job_stays_paused_whatever_its_attempt_says_of_its_writing(fleet, attempts):
    claim = fleet.claim(JOB)
    fleet.registry.verbs.pause("j")
    for quiet, status in ((False, "running"), (True, "paused"), (False, "paused"), (True, "paused")):
        assert attempts.checkpoint(claim, Progress(1, SIZE), quiet=quiet).pause
        assert fleet.status("j") == status
    fleet.registry.verbs.resume("j")
    assert not attempts.checkpoint(claim, Progress(1, SIZE)).pause
    assert fleet.status("j") == "running"


def test_what_a_copy_ends_with_is_there_for_its_host_and_no_hold_is(fleet, attempts):
    claim = fleet.claim(JOB)
    attempts.checkpoint(claim, Progress(1, SIZE), durable=Checkpoint("uuid", ((0, 1),)))
    fleet.registry.verbs.pause("j")
    attempts.finish(claim, Progress(SIZE, SIZE), durable=DURABLE, result={})
    (member,) = fleet.host(JOB.host).answers.members(JOB.transaction)
    assert member.durable == DURABLE
    assert not fleet.client.exists(keys.holds(JOB.host, JOB.id))


def test_an_attempt_that_fails_without_anything_durable_leaves_what_was(fleet, attempts):
    claim = fleet.claim(JOB)
    attempts.checkpoint(claim, Progress(1, SIZE), durable=DURABLE)
    fleet.finish(claim, errno=5, text="EIO")
    (member,) = fleet.host(JOB.host).answers.members(JOB.transaction)
    assert member.durable == DURABLE


def lose(fleet):
    for _ in range(POISON):
        release(fleet, fleet.claim(JOB))


@pytest.mark.parametrize(
    "end", [lambda fleet: fleet.finish(fleet.claim(JOB), errno=5, text="EIO"), lose], ids=["failed", "lost"]
)
def test_a_job_that_ends_badly_makes_its_transaction_due(fleet, end):
    for due in fleet.due():
        fleet.registry.transactions.close(due, fleet.view(RUN), finished=False)
    end(fleet)
    assert [due.txn for due in fleet.due()] == [RUN]


def test_an_attempt_that_was_released_has_lost_its_lease_even_before_the_next_one_claims(fleet, attempts):
    old = fleet.claim(JOB)
    release(fleet, old)
    with pytest.raises(errors.LeaseLost):
        attempts.checkpoint(old, Progress(1, SIZE))
    with pytest.raises(errors.LeaseLost):
        fleet.finish(old)
    assert fleet.status("j") == "running"


def test_a_checkpoint_brings_the_orders_down(fleet, attempts):
    claim = fleet.claim(JOB)
    assert attempts.checkpoint(claim, Progress(1, SIZE)).pause is False
    fleet.registry.verbs.set_speed("j", 77)
    fleet.registry.verbs.pause("j")
    orders = attempts.checkpoint(claim, Progress(1, SIZE))
    assert (orders.speed, orders.pause, orders.cancel) == (77, True, False)
    fleet.registry.verbs.cancel("j")
    assert attempts.checkpoint(claim, Progress(1, SIZE)).cancel


@pytest.mark.parametrize("speed", [1, (1 << 53) + 1, (1 << 63) - 1])
def test_a_speed_comes_down_as_it_is(fleet, attempts, speed):
    fleet.registry.verbs.set_speed("j", speed)
    claim = attempts.claim("j", who("a"))
    assert claim.speed == speed
    assert attempts.checkpoint(claim, Progress(0, SIZE), quiet=True).speed == speed
    assert fleet.record(JOB)["felt"] == str(speed)


def test_every_verb_knocks_at_the_door_of_a_live_attempt(fleet, attempts):
    fleet.claim(JOB)
    for verb in (
        lambda v: v.pause("j"),
        lambda v: v.resume("j"),
        lambda v: v.set_speed("j", 1),
        lambda v: v.cancel("j"),
    ):
        assert not fleet.client.exists(keys.wake(JOB.host, JOB.id))
        verb(fleet.registry.verbs)
        assert attempts.wait(JOB.id, 5)


def test_an_old_knock_is_not_heard_by_the_next_attempt(fleet, attempts):
    first = fleet.claim(JOB)
    fleet.registry.verbs.set_speed("j", 1)
    release(fleet, first)
    fleet.claim(JOB)
    assert not fleet.client.exists(keys.wake(JOB.host, JOB.id))


# --- the end of an attempt ------------------------------------------------------------------------------


def test_attempts_lost_in_a_row_without_new_durable_data_fail_the_job(fleet):
    for n in range(POISON):
        assert fleet.status("j") == "running", n
        release(fleet, fleet.claim(JOB), "fenced" if n % 2 else "dead")
    assert fleet.status("j") == "aborting"
    fleet.walk(RUN)
    view = fleet.registry.views.job("j")
    assert (view.ret, view.error) == (-5, "3 attempts in a row were lost without new durable data")
    assert fleet.registry.views.run(RUN).failed == 1


def test_new_durable_data_forgives_what_was_lost_before_it(fleet, attempts):
    for n in range(2 * POISON):
        claim = fleet.claim(JOB)
        attempts.checkpoint(claim, Progress(n, SIZE), durable=DURABLE)
        release(fleet, claim)
    assert fleet.status("j") == "running"


def test_progress_that_is_not_durable_forgives_nothing(fleet, attempts):
    for n in range(POISON):
        claim = fleet.claim(JOB)
        attempts.checkpoint(claim, Progress(n, SIZE))
        release(fleet, claim)
    assert fleet.status("j") == "aborting"


@pytest.mark.parametrize("why", ["parked", "drained"])
def test_an_attempt_that_gives_its_slot_back_is_not_lost(fleet, why):
    for _ in range(2 * POISON):
        release(fleet, fleet.claim(JOB), why)
    assert (fleet.status("j"), fleet.record(JOB)["lost"]) == ("running", "0")


def test_a_lost_attempt_of_a_cancelled_job_aborts_it(fleet):
    claim = fleet.claim(JOB)
    fleet.registry.verbs.cancel("j")
    assert fleet.status("j") == "running"
    release(fleet, claim)
    assert fleet.status("j") == "aborting"
    assert fleet.next(RUN).decision == "abort"


def test_release_and_finish_are_said_once_however_often_they_are_sent(fleet):
    claim = fleet.claim(JOB)
    release(fleet, claim)
    before = dump(fleet.client)
    assert fleet.host(JOB.host).attempts.live() == []
    assert not release(fleet, claim)
    assert dump(fleet.client) == before
    claim = fleet.claim(JOB)
    fleet.finish(claim)
    before = dump(fleet.client)
    fleet.finish(claim)
    fleet.finish(claim, errno=5, text="too late")
    assert not release(fleet, claim)
    assert dump(fleet.client) == before


def test_an_attempt_of_a_job_that_is_gone_is_forgotten(fleet, attempts):
    claim = fleet.claim(JOB)
    fleet.client.delete(keys.job(JOB.host, JOB.id))
    assert not release(fleet, claim)
    assert attempts.live() == []


def test_of_a_job_that_is_gone_nobody_tells_how_an_attempt_died(fleet, attempts):
    before = dump(fleet.client)
    assert not attempts.tell_death(JobId("gone"), "attempt1", "killed", "")
    assert dump(fleet.client) == before
    assert attempts.tell_death(JOB.id, "attempt1", "killed", "")
    assert fleet.registry.views.job(JOB.id).died == "killed"


def test_the_watcher_sees_whom_it_has_to_end(fleet, attempts):
    claim = fleet.claim(JOB)
    standing = standing_of(attempts)
    assert (standing.token, standing.attempt, standing.fenced, standing.cancelled) == (1, claim.attempt, False, False)
    assert fleet.registry.hosts.fence(JOB.host, JOB.id, claim.attempt)
    assert standing_of(attempts).fenced
    release(fleet, claim, "fenced")
    again = fleet.claim(JOB)
    assert not standing_of(attempts).fenced
    assert not fleet.registry.hosts.fence(JOB.host, JOB.id, claim.attempt), "a judgement on the attempt before"
    assert not standing_of(attempts).fenced
    assert standing_of(attempts).attempt == again.attempt


def leave_concluded(fleet, claim):
    fleet.finish(claim, errno=5, text="it failed")


def leave_released(fleet, claim):
    release(fleet, claim, "drained")
    fleet.registry.verbs.cancel("j")


def leave_abandoned(fleet, claim):
    fleet.registry.transactions.abandon(claim.spec.host)


@pytest.mark.parametrize("leave", [leave_concluded, leave_released, leave_abandoned])
def test_an_order_to_end_an_attempt_goes_with_the_attempt_and_means_no_later_job_of_its_id(fleet, attempts, leave):
    """A new job of the id begins with the same token as the one before it."""
    old = fleet.claim(JOB)
    assert fleet.registry.hosts.fence(JOB.host, JOB.id, old.attempt)
    leave(fleet, old)
    assert not fleet.client.exists(keys.fences(JOB.host))
    fleet.walk(RUN)
    fleet.registry.verbs.dismiss("j")
    later = spec("j", run="later-20261123T103000Z")
    fleet.submit(later)
    fleet.walk(later.transaction, Step.RUN)
    new = fleet.claim(later)
    assert new.token == old.token
    assert not fleet.registry.hosts.fence(JOB.host, JOB.id, old.attempt)
    assert not standing_of(attempts).fenced


def test_the_order_to_end_an_attempt_of_a_job_that_is_gone_is_forgotten_with_its_claim(fleet):
    claim = fleet.claim(JOB)
    fleet.registry.hosts.fence(JOB.host, JOB.id, claim.attempt)
    fleet.client.delete(keys.job(JOB.host, JOB.id))
    assert not release(fleet, claim)
    assert not fleet.client.exists(keys.fences(JOB.host), keys.attempts(JOB.host))


def test_an_order_to_end_one_attempt_means_no_other_one(client):
    fleet = Fleet(client)
    jobs = [spec("a"), spec("b")]
    fleet.submit(*jobs)
    fleet.walk(RUN, Step.RUN)
    claims = [fleet.claim(job) for job in jobs]
    assert fleet.registry.hosts.fence(JOB.host, jobs[0].id, claims[0].attempt)
    fenced = {each.job: each.standing().fenced for each in fleet.host(JOB.host).attempts.live()}
    assert fenced == {"a": True, "b": False}


@pytest.mark.parametrize("odd", [["a", "4711", 1.5, "boot"], ["a", True, 1.5, "boot"], ["a", 4711, 1, "boot"],
                                 ["a", 4711, 1.5, None], [7, 4711, 1.5, "boot"], ["a", 4711], 5], ids=str)  # fmt: skip
def test_a_process_of_which_the_record_is_odd_is_nobody_s_to_kill(fleet, attempts, odd):
    fleet.claim(JOB)
    fleet.client.hset(keys.attempts(JOB.host), "j", codec.pack_value(odd))
    (claim,) = attempts.live()
    with pytest.raises((ValueError, TypeError)):
        claim.who()


def test_a_claim_of_which_nobody_can_say_where_it_stands_is_no_claim_that_stands(fleet, attempts):
    fleet.claim(JOB)
    for key, read in ((keys.job(JOB.host, JOB.id), standing_of), (keys.fences(JOB.host), lambda door: door.live())):
        fleet.client.delete(key)
        fleet.client.set(key, "odd")
        with pytest.raises(redis.ResponseError):
            read(attempts)


def test_the_leases_name_the_attempts_that_have_them(fleet, attempts):
    claim = fleet.claim(JOB)
    attempts.checkpoint(claim, Progress(1, SIZE))
    found = {(JOB.host, JOB.id): Lease(claim.attempt, 1, "", vacated=False)}
    hosts = [Host("idle"), JOB.host]
    for busy in ([], hosts[:1], hosts[1:], hosts):
        assert fleet.registry.hosts.leases(hosts, busy) == found, f"where {busy} had some at the last look"


@pytest.mark.parametrize(
    "say",
    [
        lambda attempts, claim: attempts.stalled(claim, 600),
        lambda attempts, claim: attempts.diverging(claim, passes=5, dirty_rate=7, copy_rate=3),
        lambda attempts, claim: attempts.diverging(claim, passes=0, dirty_rate=0, copy_rate=0),
        lambda attempts, claim: attempts.ready(claim, Progress(1, SIZE)),
    ],
    ids=["stalled", "diverging", "converging", "ready"],
)
def test_what_an_attempt_says_once_more_as_its_answer_was_lost_changes_nothing(fleet, attempts, say):
    claim = fleet.claim(JOB)
    attempts.diverging(claim, passes=4, dirty_rate=7, copy_rate=3)
    say(attempts, claim)
    before = dump(fleet.client)
    say(attempts, claim)
    assert dump(fleet.client) == before


def test_a_knock_that_nobody_waited_for_is_gone_by_itself(fleet, attempts):
    """A line that has ended already is knocked at, maybe behind the dismissal of its job."""
    for _ in range(3):
        attempts.knock(JOB.id)
    key = keys.wake(JOB.host, JOB.id)
    assert fleet.client.llen(key) == 1
    assert 0 < fleet.client.ttl(key) <= 10


# --- doorbells ------------------------------------------------------------------------------------------


def test_a_host_has_at_most_two_doorbells_more_than_slots_and_the_longest_waiting_first(client):
    fleet = Fleet(client)
    jobs = [spec(f"j{n}") for n in range(10)]
    fleet.submit(*jobs)
    fleet.walk(RUN, Step.RUN)
    hosts = fleet.registry.hosts
    assert hosts.ring(JOB.host, 2, lost_after_ms=30_000) == ["j0", "j1", "j2", "j3"]
    assert hosts.ring(JOB.host, 2, lost_after_ms=30_000) == []
    fleet.claim(jobs[0])
    assert hosts.ring(JOB.host, 2, lost_after_ms=30_000) == ["j4"]
    fleet.registry.verbs.pause("j1")
    fleet.registry.verbs.cancel("j2")
    assert hosts.ring(JOB.host, 2, lost_after_ms=30_000) == ["j5", "j6"]


def test_a_lost_doorbell_is_rung_again_where_a_slot_is_free_and_only_there(fleet):
    hosts = fleet.registry.hosts
    assert hosts.ring(JOB.host, 1, lost_after_ms=0) == ["j"]
    assert hosts.ring(JOB.host, 1, lost_after_ms=0) == ["j"]  # at once: it is old enough
    assert hosts.ring(JOB.host, 0, lost_after_ms=0) == []  # behind full slots it merely waits
    fleet.client.lpush(keys.queue(JOB.host, WorkerName.COPY), "a message")
    assert hosts.ring(JOB.host, 1, lost_after_ms=0) == []  # it may be this very one
    assert hosts.ring(JOB.host, 1, lost_after_ms=60_000) == []
