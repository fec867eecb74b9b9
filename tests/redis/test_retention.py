"""A run is forgotten after a while, whether its jobs were dismissed or not; one that is not over never is."""

from __future__ import annotations

from puppets import RUN, spec

from blockjobs.store.retention import KEEP_RUNS


def test_an_old_run_leaves_nothing_behind(fleet):
    before = set(fleet.client.scan_iter())
    fleet.submit(spec("a"), spec("b"))
    fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    fleet.close(RUN)
    fleet.registry.verbs.dismiss("a")
    now = fleet.registry.hosts.now()
    assert fleet.registry.retention.forget(now) == []
    assert fleet.registry.retention.forget(now + KEEP_RUNS + 1000) == [RUN]
    assert fleet.registry.views.runs() == []
    left = {key for key in fleet.client.scan_iter() if key not in before and RUN.encode() in key}
    assert left == set()


def test_a_run_that_is_not_over_is_never_forgotten(fleet):
    fleet.submit(spec("a"))
    assert fleet.registry.retention.forget(fleet.registry.hosts.now() + KEEP_RUNS + 1000) == []
    assert fleet.status("a") == "created"
