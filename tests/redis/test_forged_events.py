"""Events decide nothing: whoever can write to the stream ends no wait, and takes no deadline away."""

from __future__ import annotations

import threading

import pytest
from puppets import RUN, Silent, spec

from blockjobs.client.fleet import Fleet as Client
from blockjobs.daemons.coordinator import Coordinator
from blockjobs.process.clock import Every
from blockjobs.registry import keys

pytestmark = pytest.mark.durable

RUN_ENDED = {"event": "RUN_ENDED", "id": RUN, "run": RUN, "jobs": "1", "failed": "0", "cancelled": "0"}
CONCLUDED = {"event": "JOB_STATUS_CHANGE", "id": "a", "run": RUN, "status": "concluded", "from": "pending"}
FORGED = {"the end of the run": (RUN, RUN_ENDED), "the end of the job": ("a", CONCLUDED)}


@pytest.mark.parametrize(("awaited", "event"), FORGED.values(), ids=FORGED)
def test_a_wait_ends_with_the_record_and_not_with_a_forged_event(fleet, client, server, awaited, event):
    fleet.submit(spec("a"))
    said = {}
    with Client(server.url) as here:
        waiting = threading.Thread(target=lambda: said.update(here.wait([awaited], 30)))
        waiting.start()
        client.xadd(keys.events(), event)
        waiting.join(1.0)
        assert waiting.is_alive(), said
        fleet.registry.verbs.cancel("a")
        fleet.walk(RUN)
        waiting.join(10)
    assert said == {awaited: False}


@pytest.fixture
def coordinator(fleet):
    return Coordinator(fleet.registry, Silent(), _each_look=Every(0))


def test_a_deadline_and_a_hold_timeout_outlive_a_forged_end(fleet, client, coordinator):
    fleet.submit(spec("a"))
    coordinator.once()
    client.zadd(keys.deadlines(), {RUN: 1e15})
    client.zadd(keys.stopped(), {"a": 1e15})
    for _, event in FORGED.values():
        client.xadd(keys.events(), event)
    coordinator.once()
    assert coordinator._seq == fleet.registry.events.last(), "it has read them"
    assert client.zrange(keys.deadlines(), 0, -1) == [RUN.encode()]
    assert client.zrange(keys.stopped(), 0, -1) == [b"a"]
    fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    coordinator.once()
    assert client.zrange(keys.deadlines(), 0, -1) == client.zrange(keys.stopped(), 0, -1) == []
