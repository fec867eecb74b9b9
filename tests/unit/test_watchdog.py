"""What a process reports to systemd or ``up``: over a real socket, by its own process alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import redis

from blockjobs.cli.reports import Reports
from blockjobs.cli.supervise import Program, Supervisor
from blockjobs.daemons import loop
from blockjobs.process import watchdog

REPORT = (sys.executable, "-c", "from blockjobs.process.watchdog import report_ready; report_ready(); input()")


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path, monkeypatch):
    """A socket as systemd's, whose name stands in the environment."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(str(tmp_path / "notify") if request.param == "path" else f"\0{tmp_path}")
        listener.settimeout(10)
        monkeypatch.setenv(watchdog.SOCKET, f"{tmp_path}/notify" if request.param == "path" else f"@{tmp_path}")
        yield listener


def test_a_daemon_serves_after_its_first_whole_turn_and_lives_with_each_one(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "3")
    stop, turns = threading.Event(), iter([redis.ConnectionError("away"), None, None])

    def once():
        error = next(turns, None)
        if error is not None:
            raise error
        if turns.__length_hint__() == 0:
            stop.set()

    loop.run_daemon("test", once, stop)
    assert [systemd.recv(64).decode() for _ in range(4)] == ["WATCHDOG=1", "READY=1", "WATCHDOG=1", "WATCHDOG=1"]


def test_an_error_that_nobody_expected_ends_a_turn_and_not_the_daemon():
    stop = threading.Event()

    def once():
        stop.set()
        raise RuntimeError("a bug")

    loop.run_daemon("test", once, stop)


@pytest.mark.parametrize("name", ["", "nonsense", "/nonexistent/socket", "@nobody-listens-here"])
def test_a_report_that_cannot_be_sent_stops_nobody(monkeypatch, name):
    monkeypatch.setenv(watchdog.SOCKET, name)
    watchdog.report_ready()
    watchdog.report_alive()


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [("30000000", "", 10.0), ("30000000", "this one", 10.0), ("30000000", "1", None), ("", "", None),
     ("0", "", None), ("soon", "", None)],
    ids=["all", "this process", "another one", "none", "zero", "no number"],
)  # fmt: skip
def test_life_is_reported_three_times_in_the_time_that_systemd_waits(monkeypatch, microseconds, pid, seconds):
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid.replace("this one", str(os.getpid())))
    assert watchdog.report_interval() == seconds


def test_a_report_is_that_of_the_process_that_sent_it(monkeypatch):
    with closing(Reports()) as reports:
        env = {**os.environ, watchdog.SOCKET: reports.address}
        with subprocess.Popen(REPORT, env=env, stdin=subprocess.PIPE) as child:
            ready = set()
            while not ready:
                ready = reports.take()
            child.communicate(b"\n")
        assert ready == {child.pid}
        monkeypatch.setenv(watchdog.SOCKET, reports.address)
        watchdog.report_alive()
        assert reports.take() == set(), "to live is not to be ready"


def test_a_program_is_silent_until_its_present_process_has_reported(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(Program("mute", ("sleep", "1000"), reports=True))
        until = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        talks = until + REPORT[2].replace("input()", "import time; time.sleep(1000)")
        supervisor.start(Program("talks", (*REPORT[:2], talks), reports=True))
        supervisor.start(Program("other", ("sleep", "1000")))
        assert supervisor.silent() == ["mute", "talks"]
        (tmp_path / "go").touch()
        while supervisor.silent() != ["mute"]:
            supervisor.tend(0.02)
        (tmp_path / "go").unlink()
        supervisor.children["talks"].process.kill()
        while "talks" not in supervisor.silent():
            supervisor.tend(0.01)
