"""What comes out of a queue, and is no message, ends no worker: it is dropped, and what comes behind it is done."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
import pytest
from fleet import MIB, Fleet

from blockjobs.model.liveness import WorkerName
from blockjobs.registry import keys


def message(**changed: Any) -> bytes:
    """A message as Celery writes them, but for what is said here; None: without that."""
    whole: dict[str, Any] = {
        "body": base64.b64encode(msgpack.packb([["x"], {}, {}])).decode(),
        "content-encoding": "binary", "content-type": "application/x-msgpack",
        "headers": {"lang": "py", "task": "blockjobs.step", "id": "1", "argsrepr": "", "kwargsrepr": ""},
        "properties": {"delivery_tag": "1", "body_encoding": "base64", "delivery_info": {}},
    }  # fmt: skip
    return json.dumps({name: value for name, value in (whole | changed).items() if value is not None}).encode()


ODD = {
    "no JSON": b"odd", "no text": b"\xff\xfe\x00", "nothing": b"", "a list": b"[]", "a number": b"7", "null": b"null",
    "an empty object": b"{}", "depth": b"[" * 100_000, "no properties": message(properties=None),
    "odd properties": message(properties=7), "no tag": message(properties={}),
    "a body that is no text": message(body=7), "a body that is no base64": message(body="\u00e9"),
    "a body that is no msgpack": message(body=base64.b64encode(b"\xc1").decode()),
    "a body of another shape": message(body=base64.b64encode(msgpack.packb(7)).decode()),
    "pickle": message(**{"content-type": "application/x-python-serialize"}), "no headers": message(headers=None),
    "odd headers": message(headers=7), "an unknown task": message(headers={"task": "os.system", "id": "1"}),
    "a task that is no text": message(headers={"task": [1], "id": "1"}),
    "an id that is no text": message(headers={"task": "blockjobs.step", "id": {}}),
    "arguments that are no texts": message(body=base64.b64encode(msgpack.packb([[1], {}, {}])).decode()),
    "an odd time": message(headers={"task": "blockjobs.step", "id": "1", "eta": 7, "expires": [], "retries": "x"}),
    "odd callbacks": message(body=base64.b64encode(msgpack.packb([["a", "b"], {}, {"chord": 1, "chain": 7}])).decode()),
    "an unknown encoding": message(**{"content-encoding": "rot13", "content-type": "text/plain"}),
}  # fmt: skip


@pytest.mark.parametrize("worker", WorkerName)
def test_what_is_no_message_ends_no_worker(fleet: Fleet, worker: WorkerName) -> None:
    queue, process = keys.queue(fleet.hosts[0], worker), fleet.processes[f"{worker}@a"]
    for odd in ODD.values():
        fleet.client.lpush(queue, odd)
    fleet.until_true(lambda: process.poll() is not None or fleet.client.llen(queue) == 0)
    assert process.poll() is None, "it ended"
    run = fleet.submit(fleet.plan([{"id": "x", "source": f"a:{fleet.image('a', f'{worker}.img', 1)}",
                                    "target": f"a:{fleet.root('a')}/{{run}}.img"}]))  # fmt: skip
    ended = fleet.until("RUN_ENDED", run)
    assert (ended.fields["failed"], process.poll()) == ("0", None)


def test_copies_and_workers_outlive_a_server_that_becomes_a_replica_for_a_while(fleet: Fleet) -> None:
    source = fleet.image("a", "replica.img", 8)
    run = fleet.submit(fleet.plan([{"id": "x", "source": f"a:{source}", "target": f"a:{fleet.root('a')}/{{run}}.img"}],
                                  speed=4 * MIB))  # fmt: skip
    fleet.until_durable("a", f"{run}.x")
    fleet.client.replicaof("127.0.0.1", "1")
    try:
        fleet.until_true(
            lambda: (
                ended(fleet) or all("Connection to broker lost" in tail(fleet, f"{worker}@a") for worker in WorkerName)
            )
        )
    finally:
        fleet.client.replicaof("no", "one")
    assert ended(fleet) == []
    assert fleet.until("RUN_ENDED", run).fields["failed"] == "0"
    assert fleet.job(f"{run}.x").attempts == 1, "the copy went on meanwhile"
    assert ended(fleet) == []


def ended(fleet: Fleet) -> list[str]:
    return [name for name, process in fleet.processes.items() if process.poll() is not None]


def tail(fleet: Fleet, name: str) -> str:
    return (fleet.place / "logs" / f"{name}.log").read_text()[-2000:]
