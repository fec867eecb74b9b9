"""Where one worker of a host does not beat, whoever asks for the host is told which one."""

from __future__ import annotations

import pytest
from beating import Observed, Workers
from puppets import ALPHA, grouped, spec

from blockjobs.model.errors import HostDown

pytestmark = pytest.mark.durable


@pytest.fixture
def observed(fleet):
    """Alpha was up, and then its copy worker beat no more."""
    alpha, observed = Workers(fleet, ALPHA), Observed(fleet, ALPHA)
    observed.look(alpha.both)
    observed.look(alpha.steps)
    return observed


def test_the_missing_worker_is_told_wherever_a_host_is_asked_for(here, command, observed, monkeypatch):
    monkeypatch.setattr("blockjobs.ask.checkup.PATIENCE", 0.0)  # nobody is there to answer
    assert "its copy worker does not beat" in command("hosts")[1]
    code, out, _ = command("doctor")
    assert code == 1
    assert "its copy worker does not beat" in out
    with pytest.raises(HostDown, match=r"is down since .*: its copy worker does not beat"):
        here.submit(grouped(spec("a")))


def test_a_host_is_given_up_only_when_its_steps_worker_is_gone(here, command, observed):
    assert command("abandon", ALPHA, "--yes")[0] != 0
    observed.look()
    assert here.abandon(ALPHA) == 0
