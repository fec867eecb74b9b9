"""A reply that is lost after the effect: the client sends the same call again, and it takes effect once."""

from __future__ import annotations

import pytest
import redis
from puppets import Fleet, spec
from redis.connection import AbstractConnection

from blockjobs.model import errors

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


def test_a_cancel_whose_reply_was_lost_is_not_refused(fleet, lossy):
    fleet.submit(JOB)
    lossy.append(True)
    assert fleet.registry.verbs.cancel("j") == "aborting"
    assert not lossy
    with pytest.raises(errors.VerbRefused):
        fleet.registry.verbs.cancel("j")
