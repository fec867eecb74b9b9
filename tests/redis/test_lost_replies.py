"""A reply that is lost after the effect: the client sends the same call again, and it takes effect once."""

from __future__ import annotations

import threading

import pytest
import redis
from puppets import RUN, Fleet, spec
from redis.connection import AbstractConnection

from blockjobs.model import errors
from blockjobs.model.barriers import AwaitUser, Step
from blockjobs.model.exits import Exit
from blockjobs.registry.connection import connect_client
from blockjobs.server import RedisServer

JOB = spec("j")


@pytest.fixture
def lossy(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    """The next reply to a script is lost: read, so that the effect is certain, and then the connection is cut."""
    read = AbstractConnection.read_response
    lost: list[bool] = []

    def lose_one(self, *args, **kwargs):
        reply = read(self, *args, **kwargs)
        if lost and isinstance(reply, list) and reply and reply[0] in TAGS:
            lost.clear()
            self.disconnect()
            raise redis.exceptions.ConnectionError("the reply was lost")
        return reply

    monkeypatch.setattr(AbstractConnection, "read_response", lose_one)
    return lost


TAGS = (b"held", b"lifted", b"cancelled", b"finalized")


def test_pause_and_resume_of_a_lost_reply_are_one_pause_and_one_resume(fleet, lossy):
    fleet.submit(JOB)
    lossy.append(True)
    fleet.registry.verbs.pause("j")
    assert not lossy, "the reply was lost and the call repeated"
    lossy.append(True)
    fleet.registry.verbs.resume("j")
    assert not lossy
    assert [name for name, _ in fleet.events("JOB_HELD")] == ["JOB_HELD"]
    with pytest.raises(errors.Refused, match="was not paused"):
        fleet.registry.verbs.resume("j")


def test_a_finalize_whose_reply_was_lost_is_not_refused(fleet, lossy):
    job = spec("j", auto_finalize=False)
    fleet.submit(job)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(job)
    fleet.walk(RUN, AwaitUser)
    lossy.append(True)
    fleet.registry.verbs.finalize("j")
    assert not lossy
    with pytest.raises(errors.VerbRefused):
        fleet.registry.verbs.finalize("j")


def test_a_cancel_whose_reply_was_lost_is_not_refused(fleet, lossy):
    fleet.submit(JOB)
    lossy.append(True)
    assert fleet.registry.verbs.cancel("j") == "aborting"
    assert not lossy
    with pytest.raises(errors.VerbRefused):
        fleet.registry.verbs.cancel("j")


@pytest.fixture
def leaving(tmp_path, monkeypatch):
    """A server that dies behind the effect of ``publish``, before its reply; a fleet on it; and whether it died."""
    read = AbstractConnection.read_response
    with RedisServer(tmp_path) as server, connect_client(server.url) as client:
        died = threading.Event()

        def die(self, *args, **kwargs):
            reply = read(self, *args, **kwargs)
            if isinstance(reply, list) and reply and reply[0] == b"published" and not died.is_set():
                died.set()
                server.kill()
                self.disconnect()
                raise redis.exceptions.ConnectionError("the reply was lost")
            return reply

        monkeypatch.setattr(AbstractConnection, "read_response", die)
        yield server, Fleet(client), died


def test_a_submit_whose_reply_was_lost_with_redis_is_one_once_redis_is_back(leaving):
    server, fleet, died = leaving
    client = threading.Thread(target=fleet.submit, args=(JOB,))
    client.start()
    assert died.wait(10)
    client.join(3.0)  # for longer than a client of Redis tries by itself
    assert client.is_alive(), "it gave up"
    server.start()
    client.join(10)
    assert [name for name, _ in fleet.events("RUN_PUBLISHED")] == ["RUN_PUBLISHED"]
    assert fleet.status("j") == "created"


def test_a_submit_that_nobody_can_ask_about_says_so_and_names_the_run(leaving):
    server, fleet, _ = leaving
    fleet.registry.submit.patience = 0.5
    with pytest.raises(errors.StartUnknown, match=f"whether run '{RUN}' was started is not known") as unknown:
        fleet.submit(JOB)
    assert unknown.value.exit_code == Exit.LOST_SIGHT, "that nothing was started, nobody can say"
    server.start()
    fleet.registry.submit.recover(fleet.registry.hosts.now())
    assert fleet.status("j") == "created", "it was"
