"""Redis' clock is known to be a year ahead, or behind: what is noted then is due by the clock that does not jump."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from puppets import ALPHA, RUN, Fleet, grouped, spec

from blockjobs.model.barriers import Step
from blockjobs.model.clock import UNWATCHED
from blockjobs.model.ids import RunId, TxnId
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.volumespec import FileVolume, HostedVolume
from blockjobs.registry import codec, keys
from blockjobs.registry.clock import AWAY

YEAR, HOUR, SOON = 365 * 86_400_000, 3_600_000, 60_000  # ms
JOB = spec("j", store="nas")
TRIED = spec("j", txn=f"{RUN}.each.j")
ONE = RunId(RUN)


def score(fleet: Fleet, key: str) -> float:
    """That of the only member."""
    ((_, found),) = fleet.client.zrange(key, 0, -1, withscores=True)
    return float(found)


def running(fleet: Fleet) -> None:
    fleet.registry.limits.set_store("nas", path="/mnt", jobs=1)
    fleet.submit(JOB)
    fleet.walk(RUN, Step.RUN)
    assert fleet.registry.hosts.ring(ALPHA, 2, lost_after_ms=1000) == ["j"]


def deadline(fleet: Fleet) -> float:
    fleet.registry.submit.submit(replace(grouped(JOB), fields=RunFields(deadline=HOUR / 1000)))
    return score(fleet, keys.deadlines())


def staging(fleet: Fleet) -> float:
    fleet.registry.submit.stage(grouped(JOB), [JOB])
    return score(fleet, keys.staged()) + HOUR


def next_try(fleet: Fleet) -> float:
    policies = {"each": Policy(grouped=False, retry=1, retry_wait=HOUR // 1000)}
    fleet.registry.submit.submit(replace(grouped(TRIED), grouped=False, fields=RunFields(policies=policies)))
    fleet.walk(TRIED.transaction, Step.RUN)
    fleet.finish(fleet.claim(TRIED), errno=5, text="EIO")
    fleet.again(TRIED.transaction)
    return score(fleet, keys.retries())


def hold(fleet: Fleet) -> float:
    running(fleet)
    fleet.registry.verbs.pause("j", seconds=HOUR / 1000)
    (terms,) = fleet.client.hvals(keys.terms())
    return float(terms.split()[1])


def hold_of_all(fleet: Fleet) -> float:
    fleet.registry.holds.begin("all:x", seconds=HOUR / 1000)
    (record,) = fleet.client.hvals(keys.holding())
    assert fleet.registry.holds.reap(fleet.registry.clock.now()) == []
    assert fleet.registry.holds.reap(fleet.registry.clock.now() + 2 * HOUR) == ["all:x"]
    return float(codec.unpack_value(record)[3])


def error(fleet: Fleet) -> float:
    running(fleet)
    attempts = fleet.host(ALPHA).attempts
    attempts.error(fleet.claim(JOB), 1, operation="read", action="stop", io_status="failed", text="EIO")
    return float(fleet.record(JOB)["stopped-at"]) + HOUR


def reservation(fleet: Fleet) -> float:
    fleet.registry.nodes.reserve(HostedVolume(ALPHA, FileVolume("/x")), "prune", ms=HOUR)
    return score(fleet, keys.reserved())


def notice(fleet: Fleet) -> float:
    notices = fleet.registry.notices
    notices.announce(ONE, {}, [("success", "https://example.com")])
    assert notices.due() == [(ONE, 0)]
    return score(fleet, keys.notices()) + HOUR


def taken_notice(fleet: Fleet) -> float:
    notice(fleet)
    assert fleet.registry.notices.take(ONE, 0, "me", lease=HOUR / 1000)
    return score(fleet, keys.notices())


def notice_told_in_vain(fleet: Fleet) -> float:
    notice(fleet)
    taken = fleet.registry.notices.take(ONE, 0, "me", lease=1)
    assert taken is not None
    assert fleet.registry.notices.again(taken, HOUR / 1000, "it is away")
    return score(fleet, keys.notices())


def daemon(fleet: Fleet) -> float:
    fleet.registry.hosts.daemon_beat("finalizer")
    assert fleet.registry.hosts.daemons()["finalizer"]
    return float(fleet.client.hget(keys.daemons(), "finalizer")) + HOUR


def doorbell(fleet: Fleet) -> float:
    running(fleet)
    assert score(fleet, keys.rung(ALPHA)) == score(fleet, keys.places("nas"))
    return score(fleet, keys.rung(ALPHA)) + HOUR


def bell(fleet: Fleet) -> float:
    fleet.registry.bells.note(ALPHA, "open", TxnId("t"))
    return score(fleet, keys.bells(ALPHA)) + HOUR


def place(fleet: Fleet) -> float:
    running(fleet)
    claim = fleet.claim(JOB)
    for away in (True, False):
        fleet.registry.limits.vacate(ALPHA, JOB.id, claim.attempt, "nas", away=away)
    return score(fleet, keys.places("nas")) + HOUR


NOTED: tuple[Callable[[Fleet], float], ...] = (
    deadline, staging, next_try, hold, hold_of_all, error, reservation, notice, taken_notice, notice_told_in_vain,
    daemon, doorbell, bell, place,
)  # fmt: skip


@pytest.mark.parametrize("ahead", [YEAR, -YEAR], ids=["ahead", "behind"])
@pytest.mark.parametrize("noted", NOTED, ids=lambda noted: noted.__name__)
def test_what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock(fleet, noted, ahead):
    fleet.client.set(keys.clock(), ahead)
    due = noted(fleet)
    assert abs(due - HOUR - fleet.registry.clock.now()) < SOON


@pytest.mark.parametrize("ahead", [YEAR, -YEAR], ids=["ahead", "behind"])
@pytest.mark.parametrize("noted", NOTED, ids=lambda noted: noted.__name__)
def test_what_is_noted_before_anybody_saw_the_jump_is_off_by_seconds_and_by_no_year(fleet, noted, ahead):
    seconds, micros = fleet.client.time()
    last = seconds * 1000 + micros // 1000 - ahead  # the look at which the clock was still right
    fleet.client.set(keys.clock(), f"0 {last}")
    due = noted(fleet)
    assert -SOON <= due - HOUR - last <= UNWATCHED + SOON


def test_a_machine_that_was_booted_a_moment_ago_finds_the_clock_steady(fleet):
    compare = fleet.registry.clock.compare
    assert [compare(boot, 1000).verdict for boot in ("one", "two", "two")] == ["steady"] * 3


def test_a_machine_that_knows_its_own_boot_needs_nobody_who_looked_meanwhile(fleet):
    fleet.registry.clock.compare("one", 1000)
    fleet.client.set(keys.clock(), f"0 {fleet.registry.clock.now() - 2 * AWAY}")
    assert fleet.registry.clock.compare("one", 1000).verdict == "steady"
