"""A run is forgotten after a while, whether its jobs were dismissed or not; one that is not over never is."""

from __future__ import annotations

from puppets import RUN, Silent, spec

from blockjobs.daemons.coordinator import Coordinator
from blockjobs.registry import keys
from blockjobs.registry.retention import AT_ONCE, KEEP_RUNS


def test_an_old_run_leaves_nothing_behind(fleet):
    before = set(fleet.client.scan_iter())
    fleet.submit(spec("a"), spec("b"))
    fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    fleet.close(RUN)
    fleet.registry.verbs.dismiss("a")
    now = fleet.registry.hosts.now()
    assert fleet.registry.retention.forget(now).runs == []
    assert fleet.registry.retention.forget(now + KEEP_RUNS + 1000).runs == [RUN]
    assert fleet.registry.views.runs() == []
    left = {key for key in fleet.client.scan_iter() if key not in before and RUN.encode() in key}
    assert left == set()


def test_a_run_that_is_not_over_is_never_forgotten(fleet):
    fleet.submit(spec("a"))
    assert fleet.registry.retention.forget(fleet.registry.hosts.now() + KEEP_RUNS + 1000).runs == []
    assert fleet.status("a") == "created"


def test_runs_that_go_on_for_months_keep_no_other_from_being_forgotten(fleet):
    going = [f"mirror{n}-20261122T103000Z" for n in range(AT_ONCE)]
    for run in going:
        fleet.submit(spec(f"{run}.m", run=run))
    fleet.submit(spec("a"))
    fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    fleet.close(RUN)
    assert fleet.registry.retention.forget(fleet.registry.hosts.now() + KEEP_RUNS + 1000).runs == [RUN]
    assert {view.id for view in fleet.registry.views.runs()} == set(going)


def test_the_coordinator_forgets_as_many_as_there_are_and_keeps_what_is_young(fleet):
    runs = [f"small{n}-20261122T103000Z" for n in range(2 * AT_ONCE + 1)]
    for run in runs:
        fleet.submit(spec(f"{run}.a", run=run))
        fleet.registry.verbs.cancel(f"{run}.a")
        fleet.walk(run)
        fleet.close(run)
    young = Coordinator(fleet.registry, Silent())
    young.once()
    assert len(fleet.registry.views.runs()) == len(runs), "for 90 days"
    length = fleet.client.xlen(keys.events())
    old = Coordinator(fleet.registry, Silent(), keep_runs=1, keep_events=1)
    left = []
    while fleet.registry.views.runs():
        old.once()
        left.append(len(fleet.registry.views.runs()))
    assert left == [len(runs) - AT_ONCE, 1, 0], "a turn for each part, one after the other"
    assert fleet.client.xlen(keys.events()) < length


def test_events_are_kept_for_as_long_as_their_transaction_is_not_over(fleet):
    for n in range(1, 1001):
        fleet.client.xadd(keys.events(), {"event": "RUN_LAUNCHED", "id": RUN}, id=f"{n}-0")
    fleet.client.zadd(keys.unfinished(), {RUN: 1})
    fleet.registry.events.trim(1000)
    assert fleet.client.xlen(keys.events()) == 1000
    fleet.client.zrem(keys.unfinished(), RUN)
    fleet.registry.events.trim(1000)
    assert fleet.client.xlen(keys.events()) == 0
