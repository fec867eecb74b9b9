"""A message of the broker carries ids only: what is asked of a host lies in the registry."""

from __future__ import annotations

import base64
import json
import re
import time

import msgpack
import pytest
from celery import Celery
from kombu import Consumer, Exchange, Queue
from puppets import ALPHA, BETA

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.probe import Probe
from blockjobs.ask.question import put_question
from blockjobs.broker.tasks import configure_celery
from blockjobs.model import errors, volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.ids import JobId, TxnId
from blockjobs.registry import keys

PATH = "/backup/do/not/tell.img"
ASKED = {
    "probe": {"ask": "probe", "looks": [{"as": "source", "volume": f"{ALPHA}:{PATH}"}], "patience": 3.0},
    "resize": {"ask": "resize", "volume": volumespec.to_dict(volumespec.parse_volume(f"{ALPHA}:{PATH}")), "size": 4096},
    "prune": {"ask": "prune", "targets": {"going": [{"path": PATH}], "remaining": [PATH]}, "patience": 60.0},
    "resolve": {"ask": "resolve", "transaction": "nightly", "job": PATH, "how": "replace"},
    "sweep": {"ask": "sweep", "dry": False, "lost": PATH},
}


@pytest.fixture
def bell(server):
    return Doorbell(server.url)


def messages(client, queue):
    """The whole of each message in a queue, and its arguments."""
    found = []
    for row in client.lrange(f"{keys.CELERY_PREFIX}{queue}", 0, -1):
        message = json.loads(row)
        found.append((row.decode(), msgpack.unpackb(base64.b64decode(message["body"]))[0]))
    return found


@pytest.mark.parametrize("what", ASKED.values(), ids=ASKED)
def test_a_question_is_named_in_its_message_and_asked_in_the_registry(registry, client, bell, what):
    name = put_question(registry.questions, bell, ALPHA, what, patience=5.0)
    ((whole, arguments),) = messages(client, f"steps.{ALPHA}")
    assert arguments == [name]
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert PATH not in whole
    assert "ask" not in arguments[0]
    assert 5_000 < client.pttl(keys.asked(ALPHA, name)) <= 15_000, "and is gone when nobody waits any more"
    assert registry.questions.take(BETA, name) is None
    assert registry.questions.take(ALPHA, name) == what
    assert registry.questions.take(ALPHA, name) is None, "a message that comes twice asks nothing"


def test_bells_for_steps_and_copies_name_their_transaction_and_their_job(client, bell):
    bell.step(ALPHA, Step.OPEN, TxnId("nightly"))
    bell.copy(ALPHA, JobId("nightly.a"))
    assert [arguments for _, arguments in messages(client, f"steps.{ALPHA}")] == [["open", "nightly"]]
    assert [arguments for _, arguments in messages(client, f"copy.{ALPHA}")] == [["nightly.a"]]


def test_a_host_that_is_down_is_asked_nothing(registry, client, bell):
    with pytest.raises(errors.HostDown):
        Probe(registry, bell)({ALPHA: [{"as": "machine"}]})
    assert messages(client, f"steps.{ALPHA}") == []


@pytest.mark.parametrize("comes", [False, True], ids=["nothing-comes", "a-message-came"])
def test_whoever_waits_for_messages_is_closed_at_once_and_takes_what_came(server, client, bell, comes):
    """To wait for the answer to the last question would be up to thirty seconds of each stop of a worker."""
    app = Celery("test", set_as_current=False)
    configure_celery(app, server.url)
    taken = []
    queue = Queue(f"steps.{ALPHA}", routing_key=f"steps.{ALPHA}")
    with app.connection_for_read() as connection, connection.channel() as channel:
        Consumer(channel, [queue], callbacks=[lambda _, message: taken.append(message)], accept=["msgpack"]).consume()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        if comes:
            bell.step(ALPHA, Step.OPEN, TxnId("nightly"))
            assert messages(client, f"steps.{ALPHA}") == [], "it was given to whoever waits"
        began = time.monotonic()
        channel.close()
        assert time.monotonic() - began < 8, "of ten seconds, after which an answer that does not come is an error"
    assert len(taken) == comes


def test_of_a_message_that_was_taken_nothing_is_written_that_hosts_would_share(server, client, bell):
    app = Celery("test", set_as_current=False)
    configure_celery(app, server.url)
    taken = []
    name = f"steps.{ALPHA}"
    with app.connection_for_read() as connection, connection.channel() as channel:
        queue = Queue(name, Exchange(name), routing_key=name)
        Consumer(channel, [queue], callbacks=[lambda _, message: taken.append(message)], accept=["msgpack"]).consume()
        bell.step(ALPHA, Step.OPEN, TxnId("nightly"))
        connection.drain_events(timeout=10)
        assert (len(taken), client.keys()) == (1, [])
    assert not app.conf.worker_enable_remote_control
