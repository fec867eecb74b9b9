"""A real worker that beats and takes no message ends itself with the reason, and its successor takes what waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest
from fleet import DEADLINE, Fleet

from blockjobs.spawn import spawn

SOFTWARE = 70
# What a worker is started with here: shorter times, and what breaks it when it is ready.
WORKER = """
import sys
from celery.signals import worker_ready
from blockjobs.cli.main import main
from blockworker import app, pulse
pulse.LOOK, pulse.PATIENCE = 0.5, 2.0
{breaks}
sys.argv = ["blockjobs", "worker", "--host", "d", "--queue", {queue!r}, "--config", {config!r}]
main()
"""
CUT = """
import os, socket
def deafen(sender, **_):
    def cut():
        mute, far = socket.socketpair()
        os.set_blocking(mute.fileno(), False)
        os.dup2(mute.fileno(), sender.task_consumer.channel.client.connection._sock.fileno())
        sender.kept = far
        print("cut", flush=True)
    sender.timer.call_after(0.5, cut)
worker_ready.connect(deafen, weak=False)
"""
STUCK = """
import threading
def wait(*_):
    threading.Event().wait()
app.Heartbeat.renew = wait
"""
WHOLE = ""


class Deaf:
    """Host d of a fleet, one worker of which is replaced."""

    def __init__(self, fleet: Fleet, queue: str) -> None:
        self.fleet, self.queue, self.name = fleet, queue, f"{queue}@d"
        self.log = fleet.place / "logs" / f"deaf-{queue}.log"

    def start(self, breaks: str) -> subprocess.Popen[bytes]:
        self.log.unlink(missing_ok=True)
        self.fleet.kill(self.name)
        code = WORKER.format(breaks=breaks, queue=self.queue, config=str(self.fleet.place / "d.toml"))
        env = os.environ | {"BLOCKJOBS_REDIS_URL": self.fleet.server.url_of("worker-d"), **self.fleet.env}
        process = self.fleet.processes[self.name] = spawn([sys.executable, "-c", code], log=self.log, env=env)
        broken = "cut\n" if breaks is CUT else "ready"
        self.fleet.until_true(lambda: broken in self.log.read_text())
        return process

    def back_up(self) -> str:
        image = self.fleet.image("d", "deaf.img", 1)
        jobs: list[dict[str, object]] = [
            {"id": "j", "source": f"d:{image}", "target": f"d:{self.fleet.root('d')}/{{run}}.img"}
        ]
        return self.fleet.submit(self.fleet.plan(jobs))

    def expect_end(self, process: subprocess.Popen[bytes], run: str) -> None:
        """It ends, by itself and with a reason, and whoever comes after it does what waits."""
        assert process.wait(DEADLINE) == SOFTWARE
        (reason,) = (line for line in self.log.read_text().splitlines() if "CRITICAL" in line)
        assert "although some wait and this worker beats" in reason
        self.fleet.start(self.name)
        assert self.fleet.until("RUN_ENDED", run).fields["failed"] == "0"


def freeze_pool(process: subprocess.Popen[bytes]) -> None:
    for child in psutil.Process(process.pid).children():
        child.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize(
    ("queue", "breaks"),
    [("steps", STUCK), ("steps", CUT), ("copy", CUT)],
    ids=["threads-that-wait", "connection-of-steps-cut", "connection-of-copies-cut"],
)
def test_a_worker_that_takes_no_message_ends_by_itself(fleet: Fleet, queue: str, breaks: str) -> None:
    deaf = Deaf(fleet, queue)
    process = deaf.start(breaks)
    deaf.expect_end(process, deaf.back_up())


@pytest.mark.parametrize("breaks", [freeze_pool], ids=["frozen"])
def test_so_does_a_copy_worker_whose_processes_are_dead(
    fleet: Fleet, breaks: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    deaf = Deaf(fleet, "copy")
    process = deaf.start(WHOLE)
    fleet.await_up(["d"])
    breaks(process)
    deaf.expect_end(process, deaf.back_up())


def test_a_worker_that_takes_messages_goes_on_and_so_does_one_whose_processes_were_killed(fleet: Fleet) -> None:
    """The control: the same times, and nothing, or what Celery mends by itself, is broken."""
    deaf = Deaf(fleet, "copy")
    process = deaf.start(WHOLE)
    fleet.await_up(["d"])
    assert fleet.until("RUN_ENDED", deaf.back_up()).fields["failed"] == "0"
    for child in psutil.Process(process.pid).children():
        child.kill()
    assert fleet.until("RUN_ENDED", deaf.back_up()).fields["failed"] == "0"
    assert process.poll() is None
