"""An exception that nobody expected, in a step of one member: it is that member's answer, and no other's."""

from __future__ import annotations

from pathlib import Path

import pytest
from puppets import ALPHA, RUN, Fleet, spec

from blockjobs.model import volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.cuts import Cut
from blockworker.drivers.backup import Backup
from blockworker.drivers.base import Driver, Opened
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.steps.cut import cut_members
from blockworker.steps.steps import Steps
from blockworker.volumes import Identity

SAID = "internal error: KeyError('odd')"
NOWHERE = volumespec.parse_volume({"driver": "null-co", "host": ALPHA})


class Odd(Backup):
    """Raises what nobody expects in each step of the job named ``odd``."""

    opening = Driver.opening

    def _only(self, spec):
        if spec.id == "odd":
            raise KeyError("odd")

    def open(self, _roots, spec, _wanted):
        self._only(spec)
        return Opened(1, 0, Identity(kind="none"), "", "")

    def brace(self, _roots, spec):
        pass

    def cut(self, _roots, spec, _opened):
        self._only(spec)
        return Cut(how="command:touch", path="/dev/null")

    def keep(self, _roots, _spec, _cut):
        pass

    def abort(self, _roots, spec, _number, *, opened):
        self._only(spec)


class OddSteps(Steps):
    def _driver(self, _member):
        return Odd()


@pytest.fixture
def roots(tmp_path):
    (tmp_path / "backup").mkdir()
    return Roots(HostConfig(name=ALPHA, read_roots=("/",), write_roots=(str(tmp_path / "backup"),), state=""))


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    fleet.submit(spec("fine", target=NOWHERE), spec("odd", target=NOWHERE))
    return fleet


def job(fleet, name):
    return fleet.registry.views.job(name)


def test_of_open(fleet, roots):
    OddSteps(fleet.host(ALPHA).answers, roots).take("open", RUN)
    assert job(fleet, "odd").error == SAID
    assert (job(fleet, "fine").error, job(fleet, "fine").passed) == ("", "cut")  # nothing is cut


def test_of_the_cut(fleet, roots):
    fleet.walk(RUN, Step.CUT)
    cut_members(fleet.host(ALPHA).answers, roots, RUN, lambda _: Odd())
    assert job(fleet, "odd").error == SAID
    assert (job(fleet, "fine").error, job(fleet, "fine").passed) == ("", "cut")


def test_of_settling_which_is_tried_again(fleet, roots):
    fleet.walk(RUN, Step.RUN)
    fleet.registry.verbs.cancel("fine")
    fleet.walk(RUN, Step.SETTLE)
    OddSteps(fleet.host(ALPHA).answers, roots).take("settle", RUN)
    assert job(fleet, "odd").unsettled == SAID
    assert job(fleet, "fine").unsettled == ""


def test_a_journal_that_is_lost_before_the_cut_fails_its_own_members_by_name(client, roots):
    (root,) = roots.config.write_roots
    fleet = Fleet(client)
    fleet.submit(spec("fine", target=NOWHERE), spec("odd", target=volumespec.parse_volume(f"{ALPHA}:{root}/odd.img")))
    fleet.walk(RUN, Step.CUT)
    journal = Path(root, ".blockjobs", f"{RUN}.journal")
    journal.parent.mkdir()
    journal.write_text("[]")
    cut_members(fleet.host(ALPHA).answers, roots, RUN, lambda _: Odd())
    assert job(fleet, "odd").error.startswith(f"journal {journal} is not one of version 1 or 2")
    assert (job(fleet, "fine").error, job(fleet, "fine").passed) == ("", "cut")
