"""The supervisor, with small real programs: restarts, order of stopping, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from blockjobs.cli import supervise
from blockjobs.cli.guard import living_process_groups
from blockjobs.cli.supervise import Program, Supervisor

DEADLINE = 10.0  # seconds for anything here to happen; it takes far less
OBEDIENT = "trap 'echo $0 >> stopped; exit 0' TERM; echo up; while :; do read -t 1 line <> pipe; done"


def shell(directory: Path, name: str, script: str, wave: int = 0) -> Program:
    return Program(name, ("bash", "-c", f"cd '{directory}'; {script}", name), wave)


def until(supervisor: Supervisor, happened: Callable[[], object]) -> None:
    """Let the supervisor work until something has happened."""
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline
        assert supervisor.tend(0.02)


@pytest.fixture
def place(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def up(place: Path, *names: str) -> Callable[[], bool]:
    def all_up() -> bool:
        logs = [place / f"{name}.log" for name in names]
        return all(log.exists() and "up" in log.read_text() for log in logs)

    return all_up


def test_what_dies_is_started_again_and_appends_to_its_log(place):
    with Supervisor(place) as supervisor:
        supervisor.start(shell(place, "one", OBEDIENT))
        until(supervisor, up(place, "one"))
        first = supervisor.children["one"].process
        first.kill()
        until(supervisor, lambda: supervisor.children["one"].process not in (first, None))
        assert supervisor.children["one"].deaths == 1
        until(supervisor, lambda: (place / "one.log").read_text().count("up") == 2)


def test_the_pause_between_deaths_grows_up_to_a_limit():
    pauses = supervise.BACKOFF
    assert pauses[0] == 0.2
    assert pauses[-1] == 5.0
    assert all(later <= 2 * earlier for earlier, later in pairwise(pauses))


def test_a_program_that_cannot_be_started_counts_as_dead(place):
    with Supervisor(place) as supervisor:
        supervisor.start(Program("none", ("/nonexistent/program",)))
        assert supervisor.children["none"].deaths == 1


def test_programs_are_stopped_wave_by_wave(place):
    with Supervisor(place) as supervisor:
        for name, wave in (("server", 2), ("worker", 0), ("daemon", 1)):
            supervisor.start(shell(place, name, OBEDIENT, wave))
        until(supervisor, up(place, "server", "worker", "daemon"))
    assert (place / "stopped").read_text().split() == ["worker", "daemon", "server"]


def test_what_does_not_obey_is_killed(place, monkeypatch):
    monkeypatch.setattr(supervise, "PATIENCE", 0.2)
    with Supervisor(place) as supervisor:
        supervisor.start(shell(place, "deaf", "trap '' TERM; echo up; while :; do read -t 1 line <> pipe; done"))
        until(supervisor, up(place, "deaf"))
        process = supervisor.children["deaf"].process
    assert process.returncode == -signal.SIGKILL


def test_a_stopped_process_is_no_exception(place, monkeypatch):
    monkeypatch.setattr(supervise, "PATIENCE", 0.2)
    with Supervisor(place) as supervisor:
        supervisor.start(shell(place, "frozen", OBEDIENT))
        until(supervisor, up(place, "frozen"))
        process = supervisor.children["frozen"].process
        process.send_signal(signal.SIGSTOP)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("session", ["", "setsid"], ids=["same-group", "session-of-its-own"])
def test_grandchildren_do_not_outlive_their_parent(place, session):
    with Supervisor(place) as supervisor:
        supervisor.start(shell(place, "parent", f"{session} sleep 1000 & echo $! > grandchild; echo up; wait"))
        until(supervisor, up(place, "parent"))
        grandchild = psutil.Process(int((place / "grandchild").read_text()))
    assert not grandchild.is_running()


@pytest.mark.parametrize("number", sorted(supervise.STOP), ids=lambda number: number.name)
def test_a_signal_ends_tending_at_once(place, number):
    with Supervisor(place) as supervisor:
        # To this thread, as `up` has no other: another suite's threads do not hold signals back.
        signal.pthread_kill(threading.get_ident(), number)
        assert not supervisor.tend(DEADLINE)


def test_children_hear_the_signals_that_the_supervisor_holds_back(place):
    with Supervisor(place) as supervisor:
        supervisor.start(shell(place, "mask", "grep SigBlk /proc/self/status; echo up; read line <> pipe"))
        until(supervisor, up(place, "mask"))
    assert "SigBlk:\t0000000000000000" in (place / "mask.log").read_text()


def test_a_killed_guard_is_replaced(place):
    with Supervisor(place) as supervisor:
        guard = supervisor._guard.pid
        os.kill(guard, signal.SIGKILL)
        until(supervisor, lambda: supervisor._guard.pid != guard)


SUPERVISOR = """
import sys
from itertools import pairwise
from pathlib import Path
from blockjobs.cli import guard
from blockjobs.cli.supervise import Program, Supervisor
guard.PATIENCE = 0.5
with Supervisor(Path(sys.argv[1])) as supervisor:
    supervisor.start(Program("deaf", ("sh", "-c", "trap '' TERM; sleep 1000 & echo up; while :; do wait; done")))
    supervisor.start(Program("plain", ("sh", "-c", "echo up; exec sleep 1000")))
    print(*[child.process.pid for child in supervisor.children.values()], supervisor._guard.pid, flush=True)
    supervisor.tend(1000)
"""


def test_nothing_is_left_when_the_supervisor_itself_is_killed(place):
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(place)], stdout=subprocess.PIPE) as process:
        deaf, plain, guard = map(int, process.stdout.readline().split())
        deadline = time.monotonic() + DEADLINE
        while not up(place, "deaf", "plain")():
            assert time.monotonic() < deadline
        process.kill()
        assert process.stdout.read() == b""  # nobody else holds its output open
        while living_process_groups() & {deaf, plain, guard}:
            assert time.monotonic() < deadline
