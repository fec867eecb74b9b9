"""What is made of paths that hang: which jobs are rung for, what a missed deadline says, and what is answered."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from puppets import ALPHA, BETA, RUN, spec

from blockjobs.daemons import finalizer
from blockjobs.daemons.coordinator import Coordinator
from blockjobs.model import volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.cuts import Cut
from blockjobs.model.hanging import HangingPath
from blockjobs.process.clock import Every
from blockjobs.registry import codec, keys
from blockjobs.registry.attempts import Progress
from blockworker.drivers.backup import Backup
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.steps.cut import cut_members
from blockworker.steps.desk import Desk
from blockworker.steps.forker import Forker
from blockworker.steps.lanes import Lanes
from blockworker.steps.path_mounts import MountTable
from blockworker.steps.questions import QuestionDesk
from blockworker.system.crew import left_behind

HANGS = HangingPath(path="/backup/.x.part", point="/backup", since=1.0, about="OPEN", transaction=RUN)
NUMBERS = count(1)
DEADLINE = 20.0  # seconds; long, for machines that are busy
DIES = "/dies"  # the path that kills the process that touches it


class Bell:
    """A doorbell that counts."""

    def __init__(self):
        self.rung = []

    def copy(self, _host, job):
        self.rung.append(job)

    def step(self, _host, _step, _txn):
        """Nobody is there."""


def tell(fleet, *hanging, host=ALPHA, slots=2):
    """A heartbeat of a host on which these paths hang."""
    fleet.registry.hosts.beat(host, "machine", slots, {"hanging": [each.to_dict() for each in hanging]})


def elsewhere(name):
    return spec(name, target=volumespec.parse_volume(f"{ALPHA}:/other/{name}.img"))


def ring(fleet, hanging=()):
    return fleet.registry.hosts.ring(ALPHA, 2, lost_after_ms=1000, hanging=hanging)


@pytest.fixture
def waiting(fleet):
    """Ten jobs that would hang wait for a slot, and behind them one that would not."""
    fleet.submit(*(spec(f"j{n}") for n in range(10)), elsewhere("z"))
    fleet.walk(RUN, Step.RUN)
    return fleet


def test_a_job_that_would_hang_is_not_rung_for_and_one_behind_it_is(waiting):
    assert ring(waiting, [HANGS]) == ["z"]
    assert ring(waiting, [replace(HANGS, point="/", beneath=("/backup", "/srv"))]), "others are mounted below it"


def test_a_job_behind_a_page_of_jobs_that_would_hang_is_rung_for(waiting, monkeypatch):
    monkeypatch.setattr("blockjobs.registry.hosts.PAGE", 5)
    assert ring(waiting, [HANGS]) == ["z"]


def test_a_job_that_cannot_be_read_is_rung_for_though_something_hangs(waiting, caplog):
    """Its claim says what is wrong with it."""
    waiting.client.hset(keys.job(ALPHA, "j3"), "spec", b"\xc1")
    assert ring(waiting, [HANGS]) == ["j3", "z"]
    assert "a job that waits for a slot cannot be read" in caplog.text


def test_nothing_is_held_back_when_nothing_hangs(waiting):
    assert ring(waiting) == ["j0", "j1", "j2", "j3"]


def test_the_coordinator_rings_by_what_the_heartbeat_tells(waiting):
    bell = Bell()
    coordinator = Coordinator(waiting.registry, bell, _each_look=Every(0))
    tell(waiting, HANGS)
    coordinator.once()
    coordinator.once()
    assert bell.rung == ["z"]
    tell(waiting)
    coordinator.once()
    assert bell.rung[1:3] == ["j0", "j1"]


@pytest.mark.parametrize(("attempts", "more"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_an_attempt_that_hangs_leaves_its_slot_to_another_one_as_far_as_there_are_slots(fleet, attempts, more):
    tell(fleet, *(replace(HANGS, job=f"j{n}") for n in range(attempts)), HANGS)
    assert fleet.registry.hosts.cards([ALPHA])[ALPHA].places == 2 + more


def test_a_doorbell_that_comes_while_its_file_system_hangs_is_forgotten(waiting):
    assert ring(waiting) == ["j0", "j1", "j2", "j3"]
    attempts = waiting.host(ALPHA).attempts
    assert attempts.held_back("j0") == ""
    tell(waiting, HANGS)
    assert attempts.held_back("j0") == HANGS.path
    assert waiting.client.zscore(keys.rung(ALPHA), "j0") is None
    assert waiting.client.zscore(keys.rung(ALPHA), "j1") is not None
    assert attempts.held_back("z") == ""
    tell(waiting)
    assert "j0" in ring(waiting), "it is rung for when nothing hangs there"


@pytest.mark.parametrize("step", [Step.OPEN, Step.CUT, Step.PREPARE])
def test_a_deadline_that_is_missed_names_the_host_and_the_path(fleet, step):
    job = spec("j", host=BETA)
    fleet.submit(job)
    if step is Step.PREPARE:
        fleet.walk(RUN, Step.RUN)
        fleet.copy(job)
    fleet.walk(RUN, step)
    tell(fleet, HANGS, host=BETA)
    judge = finalizer.Finalizer(fleet.registry, Bell(), dict.fromkeys(finalizer.DEADLINES, -1.0), _each_look=Every(0))
    for _ in range(3):
        judge.once()
    error = fleet.registry.views.job("j").error
    assert error.startswith(f"host {BETA} did not answer {step.upper()}")
    assert error.endswith(f"{HANGS.path} hangs there")


def test_a_checkpoint_tells_what_hangs_and_the_next_one_that_nothing_does(fleet):
    fleet.submit(job := spec("j"))
    fleet.walk(RUN, Step.RUN)
    claim, attempts = fleet.claim(job), fleet.host(ALPHA).attempts
    attempts.checkpoint(claim, Progress(1, 2), hangs=("/backup/.j.part", 11.0))
    view = fleet.registry.views.job("j")
    assert view.hangs is not None
    since, path = view.hangs
    assert path == "/backup/.j.part"
    assert 10.5 < view.now / 1000 - since / 1000 < 11.5
    assert [each.standing().hangs for each in attempts.live()] == [(since, path)]
    attempts.checkpoint(claim, Progress(1, 2))
    assert fleet.registry.views.job("j").hangs is None


# --- steps ------------------------------------------------------------------------------------------------


class Taking(Lanes):
    """Lanes that take errands, and begin none."""

    def __init__(self, point_of):
        self.handed = []
        super().__init__(lambda: pytest.fail("nothing is begun here"), point_of)

    def hand(self, errand):
        self.handed.append(errand)
        return True


@pytest.fixture
def desk(fleet):
    """The desk of a host with two write roots, each a file system, and its lanes."""
    mounts = MountTable()
    mounts._points, mounts._read_at = ("/backup", "/other", "/"), float("inf")
    config = HostConfig(name=ALPHA, read_roots=("/srv",), write_roots=("/backup", "/other"))
    lanes = Taking(mounts.point_of)
    return Desk(fleet.host(ALPHA), config, lanes, mounts), lanes.handed


def test_a_step_goes_into_a_lane_for_each_file_system_and_follows_members_that_move(fleet, desk):
    desk, handed = desk
    fleet.submit(spec("a"), spec("b"), elsewhere("c"))
    desk.step("open", RUN)
    assert {errand.lane: errand.words["jobs"] for errand in handed} == {
        frozenset({"/", "/backup"}): ["a", "b"], frozenset({"/", "/other"}): ["c"],
    }  # fmt: skip
    handed.clear()
    desk.step("cut", RUN)
    (errand,) = handed
    assert (errand.lane, sorted(errand.words["jobs"])) == ({"/", "/backup", "/other"}, ["a", "b", "c"])
    handed.clear()
    desk.step("settle", RUN)  # whoever settles notes the decision first, here beneath the first write root
    assert {errand.lane: errand.words["jobs"] for errand in handed} == {
        frozenset({"/", "/backup"}): ["a", "b"], frozenset({"/", "/backup", "/other"}): ["c"],
    }  # fmt: skip
    handed.clear()
    fleet.client.lrem(keys.members(ALPHA, RUN), 0, "b")  # as a move to another host does
    desk.step("prepare", RUN)
    assert sorted(job for errand in handed for job in errand.words["jobs"]) == ["a", "c"]


def test_a_member_that_cannot_be_read_is_handed_in_by_itself_and_the_others_with_their_file_systems(fleet, desk):
    desk, handed = desk
    fleet.submit(spec("a"), spec("b"), elsewhere("c"))
    fleet.client.hset(keys.job(ALPHA, "b"), "spec", b"\x02")
    desk.step("open", RUN)
    assert {errand.lane: errand.words["jobs"] for errand in handed} == {
        frozenset(): ["b"], frozenset({"/", "/backup"}): ["a"], frozenset({"/", "/other"}): ["c"],
    }  # fmt: skip


def test_a_host_names_what_it_has_put_aside_and_no_more_of_it_than_a_heartbeat_carries(desk):
    desk, handed = desk
    assert "aside" not in desk.told()
    desk.sweep()
    sweeps = {errand.words["path"]: errand for errand in handed if errand.kind == "sweep"}
    assert sorted(sweeps) == ["/backup", "/other"]
    sweeps["/backup"].done({"journal /backup/.blockjobs/x.journal": "JobFailed: it is none of ours"})
    sweeps["/other"].done({})
    odd = desk.told(aside={"claim of job a": "ValueError: x"})["aside"]
    assert odd == {
        "claim of job a": "ValueError: x",
        "journal /backup/.blockjobs/x.journal": "JobFailed: it is none of ours",
    }
    sweeps["/backup"].done({})
    assert "aside" not in desk.told()
    many = desk.told(aside={f"claim of job {n}": "y" * 1000 for n in range(1000)})["aside"]
    assert (len(many), {len(error) for error in many.values()}) == (20, {300})


def test_a_rescan_goes_on_where_a_page_ended_and_from_root_to_root_and_names_one_that_nobody_could_read(fleet, desk):
    desk, handed = desk
    page = {"rows": [], "odd": [], "more": 0, "restored": 0}

    def ask(root, after=None, *answers):
        question = f"q{next(NUMBERS)}"
        what = {"ask": "rescan", "root": root, "after": after, "patience": 60.0}
        fleet.registry.questions.put(ALPHA, question, what, 60.0)
        handed.clear()
        desk.question(question)
        for errand, answer in zip(handed, answers, strict=True):
            assert (errand.kind, errand.lane, errand.words["after"]) == ("rescan", {errand.words["path"]}, after)
            errand.done(answer)
        return fleet.registry.questions.wait(ALPHA, question, 1.0)

    assert ask("", None, {**page, "after": [b"d", b"n"]})["next"] == ["/backup", [b"d", b"n"]]
    assert ask("/backup", [b"d", b"n"], {**page, "after": None})["next"] == ["/other", None]
    assert ask("/other", None, {**page, "after": None})["next"] is None
    lost = ask("/backup", None, None)
    assert (lost["lost"], lost["next"], "nobody could look" in lost["odd"][0][1]) == (True, ["/other", None], True)
    (odd,) = ask("/gone")["odd"]
    assert odd == ["/gone", "it is no write root of host alpha any more"]


class Cutting(Backup):
    """Cuts by touching the source, which a FIFO lets nobody come back from."""

    def brace(self, roots, spec):
        pass

    def cut(self, _roots, spec, _opened):
        with open(spec.source.volume.filename, "w", encoding="ascii"):
            return Cut(how="command:touch", path="/dev/null")

    def keep(self, roots, spec, cut):
        pass


def test_a_cut_that_hangs_fails_its_member_by_name_and_all_others_are_answered_for(fleet, fifo):
    nowhere = volumespec.parse_volume({"driver": "null-co", "host": ALPHA})
    stuck = spec("stuck", source=volumespec.parse_volume(f"{ALPHA}:{fifo}"), target=nowhere)
    fine = spec("fine", source=volumespec.parse_volume(f"{ALPHA}:/dev/null"), target=nowhere)
    fleet.submit(stuck, fine)
    fleet.walk(RUN, Step.CUT)
    roots = Roots(HostConfig(name=ALPHA, read_roots=("/",), write_roots=("/",)))
    began = time.monotonic()
    cut_members(fleet.host(ALPHA).answers, roots, RUN, lambda _: Cutting(), limit=0.5)
    assert time.monotonic() - began < DEADLINE / 2
    assert left_behind(), "the process is to end"
    error = fleet.registry.views.job("stuck").error
    assert error.endswith(f"was not cut in time: {fifo} on host {ALPHA} hangs")
    assert fleet.registry.views.job("fine").passed == "cut"
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    deadline = time.monotonic() + DEADLINE
    while left_behind():
        assert time.monotonic() < deadline
    os.close(reader)


# --- questions --------------------------------------------------------------------------------------------


def serve(connection: Connection) -> None:
    """Look at volumes: a path that is a FIFO hangs."""
    while True:
        try:
            kind, words = codec.unpack_value(connection.recv_bytes())
        except EOFError:
            return
        if kind == "look":
            paths = [look["volume"].partition(":")[2] for look in words["looks"]]
        else:
            paths = [words["keys"]["going"][0]["path"]] if kind == "prune" else [words["volume"]["filename"]]
        for path in paths:
            if path == DIES:
                os._exit(1)
            with open(path, "w", encoding="ascii"):
                pass
        connection.send_bytes(codec.pack_value([[{"size": 1}] * len(paths), True]))


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


@pytest.fixture
def question() -> str:
    """An id that no other test asks with: what hung in the test before is answered when its FIFO is closed."""
    return f"q{next(NUMBERS)}"


@pytest.fixture
def questions(fleet, fifo) -> Iterator[QuestionDesk]:
    """The questions of a host on which the FIFO is a file system of its own."""
    forker = Forker(serve)

    def point_of(path: str) -> str:
        return "/hangs" if path == str(fifo) else "/sound"

    config = HostConfig(name=ALPHA, read_roots=("/",), write_roots=("/",))
    yield QuestionDesk(fleet.registry.questions, config, Lanes(forker.start, point_of, patience=0.1), point_of)
    forker.close()


def answer(fleet, questions, question):
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        questions.expire()
        if (found := fleet.registry.questions.wait(ALPHA, question, 0.05)) is not None:
            return found
    raise AssertionError("no answer")


def test_what_hangs_is_answered_by_name_and_all_else_as_it_is(fleet, questions, question, fifo):
    looks = [{"as": "source", "volume": f"{ALPHA}:{path}"} for path in ("/dev/null", fifo, "/dev/zero")]
    questions.probe(question, looks, 1.0)
    first, hangs, third = answer(fleet, questions, question)
    assert (first, third) == ({"size": 1}, {"size": 1})
    assert hangs["text"].startswith(f"{fifo} on host {ALPHA} hangs")


@pytest.mark.parametrize("kind", ["look", "resize", "prune"])
def test_a_process_that_dies_at_its_work_is_said_to_have_ended_at_once_and_nothing_is_said_to_hang(
    fleet, questions, question, kind
):
    volume = {"driver": "file", "host": ALPHA, "filename": DIES}
    fleet.registry.questions.permit(ALPHA, question, 60)
    if kind == "look":
        questions.probe(question, [{"as": "source", "volume": f"{ALPHA}:{DIES}"}], 600.0)
    elif kind == "resize":
        questions.resize(question, volume, 1, 600.0)
    else:
        questions.prune(question, {"going": [{"path": DIES}], "remaining": []}, 600.0)
    told = answer(fleet, questions, question)
    text = told["text"] if kind == "resize" else told[0]["text"]
    assert text.startswith(f"{DIES} on host {ALPHA}: nobody could look: the process for it has ended")


def test_who_answers_is_told_at_once_and_nothing_is_asked_for_it(fleet, questions, question):
    questions.probe(question, [{"as": "machine"}], 1.0)
    assert answer(fleet, questions, question)[0]["machine"]


@pytest.mark.parametrize("kind", ["resize", "prune"])
def test_a_change_that_was_not_begun_is_refused_by_name_and_can_never_be_begun(fleet, questions, question, fifo, kind):
    fleet.registry.questions.permit(ALPHA, question, 60)
    if kind == "resize":
        questions.resize(question, {"driver": "file", "host": ALPHA, "filename": str(fifo)}, 1, 1.0)
        told = answer(fleet, questions, question)
    else:
        questions.prune(question, {"going": [{"path": str(fifo)}], "remaining": []}, 1.0)
        (told,) = answer(fleet, questions, question)
        assert told["state"] == "left"
    assert told["text"].startswith(f"{fifo} on host {ALPHA} hangs")
    assert not fleet.registry.questions.take_permit(ALPHA, question)


def test_a_change_that_may_have_been_begun_is_not_answered(fleet, questions, question, fifo):
    questions.resize(question, {"driver": "file", "host": ALPHA, "filename": str(fifo)}, 1, 0.6)  # the permit was taken
    assert fleet.registry.questions.wait(ALPHA, question, 0.3) is None
    questions.expire()
    assert fleet.registry.questions.wait(ALPHA, question, 0.3) is None
