"""A thread that a worker cannot do without goes on after an error, or its process ends; none leaves half a process."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from children import end_child

import blockworker
from blockjobs.model import volumespec
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockjobs.model.liveness import WorkerName
from blockjobs.registry.attempts import Claim, Progress
from blockjobs.registry.heartbeats import Holder, HostTaken
from blockworker.attempt import farewell, spares
from blockworker.attempt.control import ControlLine
from blockworker.copy.lanes import CopyLanes
from blockworker.drivers.durability import Durability
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.steps.board import Errand
from blockworker.steps.desk import Desk
from blockworker.steps.forker import Forker
from blockworker.steps.lanes import Lanes
from blockworker.steps.path_mounts import MountTable
from blockworker.system.threads import SOFTWARE, vital_thread
from blockworker.watch.heartbeat import Heartbeat
from blockworker.watch.watcher import Watcher

DEADLINE = 20.0  # seconds; long, for machines that are busy
HOST = Host("a")
CONFIG = HostConfig(name=HOST, read_roots=(), write_roots=())
SPEC = JobSpec(
    id=JobId("R.a"), transaction=TxnId("R"), run=RunId("R"), source=volumespec.parse_volume("a:/s"),
    target=volumespec.parse_volume("a:/t"),
)  # fmt: skip
Call = Callable[..., Any]


class Unforeseen(BaseException):
    """What nobody expected, and nothing catches by chance."""


# Each begins one kind of thread, which calls ``turn`` in its loop.


def watcher(turn: Call) -> None:
    Watcher(SimpleNamespace(live=turn, host=HOST), Roots(CONFIG), tidy=lambda: None).start()  # type: ignore[arg-type]


def heartbeat(turn: Call) -> None:
    Heartbeat(SimpleNamespace(beat=turn), CONFIG).start()  # type: ignore[arg-type]


def facts(turn: Call) -> None:
    Heartbeat(SimpleNamespace(beat=lambda *_, **__: "1"), CONFIG, turn).start()  # type: ignore[arg-type]


def desk(turn: Call) -> None:
    lanes = Lanes(lambda: pytest.fail("nothing is begun"), str)
    lanes.look = turn  # type: ignore[method-assign]
    registry: Any = SimpleNamespace(questions=None, answers=None)
    Desk(registry, CONFIG, lanes, MountTable()).start()


def errands(turn: Call) -> None:
    lanes = Lanes(turn, str)
    for number in range(100):
        lanes.hand(Errand("touch", ("touch", str(number)), frozenset(), {}, "an errand"))


def control_line(turn: Call) -> None:
    claim = Claim(1, "a1", SPEC, {"size": 2}, Checkpoint(), 0, 1, 0, {})
    ControlLine(SimpleNamespace(wait=turn), claim, Progress, int).start()  # type: ignore[arg-type]


class Flushed:
    """A copy of which something is to be flushed."""

    def __init__(self, turn: Call) -> None:
        self._turn = turn

    @property
    def flush_due(self) -> bool:
        return bool(self._turn())


def durability(turn: Call) -> None:
    Durability(Flushed(turn), SimpleNamespace(wake=lambda: None), "t").__enter__()  # type: ignore[arg-type]


def forker(turn: Call) -> None:
    made = Forker(lambda _: None)
    made.watch(turn)
    os.kill(made.pid, signal.SIGKILL)


def farewells(turn: Call) -> None:
    farewell.follow_end(turn)


def copy_lane(turn: Call) -> None:
    class Lane(CopyLanes):
        def __init__(self) -> None:
            self._lanes = []

        def _copy(self, *_: object) -> None: ...

    lane = Lane()
    CopyLanes._lane = turn  # type: ignore[method-assign]
    no: Any = None
    CopyLanes.__init__(lane, no, no, size=1, chunk=1, lanes=1, throttle=no, wake=lambda: None)
    lane._lanes[0].start()


KINDS = [
    watcher, heartbeat, facts, desk, errands, control_line, durability, forker, farewells, copy_lane,
]  # fmt: skip


@pytest.fixture
def exit_code(tmp_path: Path) -> Iterator[Callable[[Callable[[], None]], int | None]]:
    """The exit code of a process that begins something and waits; None: it did not end."""
    children = []

    def run(begin: Callable[[], None]) -> int | None:
        child = os.fork()
        if child == 0:
            try:
                logging.basicConfig(filename=tmp_path / "log", force=True)
                begin()
                signal.pause()
            finally:
                os._exit(99)
        children.append(child)
        handle = os.pidfd_open(child)
        try:
            ended, _, _ = select.select([handle], [], [], DEADLINE)
        finally:
            os.close(handle)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if ended else None

    yield run
    for child in children:
        end_child(child)


@pytest.mark.parametrize("begin", KINDS)
def test_a_thread_that_ends_at_what_nobody_expected_ends_its_process_and_says_why(begin, exit_code, tmp_path):
    def turn(*_: object, **__: object) -> None:
        raise Unforeseen("a bug")

    assert exit_code(lambda: begin(turn)) == SOFTWARE
    assert "has ended: Unforeseen: a bug" in (tmp_path / "log").read_text()


GOES_ON = [watcher, heartbeat, facts, desk, errands]


@pytest.mark.parametrize("begin", GOES_ON)
def test_a_thread_of_many_turns_goes_on_behind_an_error_of_one(begin, exit_code):
    """The process ends by itself at the third turn."""

    def begun() -> None:
        turns = []

        def turn(*_: object, **__: object) -> Any:
            turns.append(time.monotonic())
            if len(turns) >= 3:
                os._exit(3)
            raise KeyError("a bug")

        begin(turn)

    assert exit_code(begun) == 3


def test_a_host_whose_name_another_machine_has_taken_ends_its_worker(exit_code, tmp_path):
    """Its watcher would release the claims of the other machine."""

    def turn(*_: object, **__: object) -> None:
        raise HostTaken("a", Holder(WorkerName.STEPS, "another", "", "7", 0))

    assert exit_code(lambda: heartbeat(turn)) == SOFTWARE
    assert "host name 'a' is held by another steps worker, which" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "fact", [{"x": object()}, {"x": 1 << 70}, {1: 2, "x": {object()}}], ids=["odd", "large", "set"]
)
def test_a_fact_that_cannot_be_told_silences_no_host(fact):
    told: list[Any] = []
    beat = Heartbeat(SimpleNamespace(beat=lambda _, **about: told.append(about["facts"])), CONFIG, lambda: fact)  # type: ignore[arg-type]
    beat.register()
    (facts_told,) = told
    assert "version" in facts_told
    assert list(facts_told["aside"]) == ["the changing facts of this host"]


def test_a_look_at_whether_a_flush_is_due_that_fails_ends_the_attempt(monkeypatch):
    """The lanes would wait for ever for a flush that never comes."""
    woken = threading.Event()

    def fail() -> bool:
        raise KeyError("a bug")

    with Durability(Flushed(fail), SimpleNamespace(wake=woken.set), "t") as made:  # type: ignore[arg-type]
        made.wake()
        assert woken.wait(DEADLINE)
        with pytest.raises(KeyError):
            made.check()


def test_errands_for_which_no_thread_could_be_made_are_done_once_one_can_be(monkeypatch):
    done = threading.Event()
    refused = []

    class Runner:
        pid = os.getpid()

        def run(self, kind: str, words: object) -> tuple[Any, bool]:
            return "done", True

        def close(self) -> None: ...

    def refuse_once(target: Call, name: str) -> threading.Thread:
        if not refused:
            refused.append(name)
            raise RuntimeError("can't start new thread")
        return vital_thread(target, name)

    monkeypatch.setattr("blockworker.steps.lanes.vital_thread", refuse_once)
    lanes = Lanes(Runner, str)
    assert lanes.hand(Errand("touch", ("touch", "x"), frozenset(), {}, "x", done=lambda _: done.set()))
    assert not done.is_set()
    lanes.look()
    assert done.wait(DEADLINE)
    lanes.close(0.0)


def test_a_look_at_processes_that_fails_takes_nothing_from_the_event_loop_of_a_copy_worker():
    calls: list[Any] = []
    hub = SimpleNamespace(call_repeatedly=lambda seconds, call, *words: calls.append((seconds, call, words)))
    spares.follow_hanging_attempts(SimpleNamespace(pool=None, hub=hub), 2)
    ((_, call, words),) = calls
    call(*words)
    call(*words)


def test_every_thread_that_outlives_an_errand_is_a_vital_one():
    """A thread for one errand is waited for, or given up, by whoever has begun it."""
    found = [
        f"{path.name}: {line.strip().partition('threading.Thread(')[2].partition(',')[0]}"
        for path in Path(blockworker.__file__).parent.rglob("*.py")
        for line in path.read_text().splitlines()
        if "threading.Thread(target" in line
    ]
    assert sorted(found) == [
        "checkup.py: target=run",
        "copying.py: target=flush",
        "crew.py: target=self._work",
        "cut.py: target=self._keep",
        "threads.py: target=run",
    ]
