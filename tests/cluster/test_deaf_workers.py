"""A real worker that beats and takes no message ends itself with the reason, and its successor takes what waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest
from fleet import DEADLINE, Fleet
from forks import Forked, forks

from blockjobs.model.errors import VerbRefused
from blockjobs.model.ids import RunId

SOFTWARE = 70
MANY = 5  # messages: one more than a worker has threads, or processes twice


class Deaf:
    """Host d of a fleet, one worker of which is replaced."""

    def __init__(self, fleet: Fleet, queue: str) -> None:
        self.fleet, self.queue, self.name = fleet, queue, f"{queue}@d"
        self.log = fleet.place / "logs" / f"deaf-{queue}.log"

    def start(self, breaks: str) -> Forked:
        """See ``deafened`` for what can break."""
        self.log.unlink(missing_ok=True)
        self.fleet.kill(self.name)
        words = [breaks, "worker", "--host", "d", "--queue", self.queue, "--config", str(self.fleet.place / "d.toml")]
        env = os.environ | {"BLOCKJOBS_REDIS_URL": self.fleet.server.url_of("worker-d"), **self.fleet.env}
        process = self.fleet.processes[self.name] = forks().start("deafened:main", words, log=self.log, env=env)
        broken = "cut\n" if breaks == "connection" else "ready"
        self.fleet.until_true(lambda: broken in self.log.read_text())
        return process

    def back_up(self, runs: int = 1) -> list[RunId]:
        """Runs of one job each."""
        image = self.fleet.image("d", "deaf.img", 1)
        jobs: list[dict[str, object]] = [
            {"id": "j", "source": f"d:{image}", "target": f"d:{self.fleet.root('d')}/{{run}}.img"}
        ]
        return [self.fleet.submit(self.fleet.plan(jobs)) for _ in range(runs)]

    def expect_end(self, process: Forked, runs: list[RunId]) -> None:
        """It ends, by itself and with a reason, and whoever comes after it does what waits.

        What it had taken is told once more, but not soon: that is cancelled.
        """
        assert process.wait(DEADLINE) == SOFTWARE
        (reason,) = (line for line in self.log.read_text().splitlines() if "CRITICAL" in line)
        assert "although some wait and this worker beats" in reason
        self.fleet.start(self.name)
        ended = self.fleet.until("RUN_ENDED", when=lambda event: event.id in runs)
        assert (ended.fields["failed"], ended.fields["cancelled"]) == ("0", "0")
        for run in {*runs} - {ended.id}:
            with suppress(VerbRefused):  # it was done meanwhile
                self.fleet.registry.verbs.cancel(f"{run}.j")
        self.fleet.until_closed()


def freeze_pool(process: Forked) -> None:
    for child in psutil.Process(process.pid).children():
        child.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize(
    ("queue", "breaks", "runs"),
    [("steps", "threads", MANY), ("steps", "connection", 1), ("copy", "connection", 1)],
    ids=["threads-that-wait", "connection-of-steps-cut", "connection-of-copies-cut"],
)
def test_a_worker_that_takes_no_message_ends_by_itself(fleet: Fleet, queue: str, breaks: str, runs: int) -> None:
    deaf = Deaf(fleet, queue)
    process = deaf.start(breaks)
    deaf.expect_end(process, deaf.back_up(runs))


@pytest.mark.parametrize("breaks", [freeze_pool], ids=["frozen"])
def test_so_does_a_copy_worker_whose_processes_are_dead(fleet: Fleet, breaks: Callable[[Forked], None]) -> None:
    deaf = Deaf(fleet, "copy")
    process = deaf.start("nothing")
    fleet.await_up(["d"])
    breaks(process)
    deaf.expect_end(process, deaf.back_up(MANY))


def test_a_worker_that_takes_messages_goes_on_and_so_does_one_whose_processes_were_killed(fleet: Fleet) -> None:
    """The control: the same times, and nothing, or what Celery mends by itself, is broken."""
    deaf = Deaf(fleet, "copy")
    process = deaf.start("nothing")
    fleet.await_up(["d"])
    assert fleet.until("RUN_ENDED", *deaf.back_up()).fields["failed"] == "0"
    for child in psutil.Process(process.pid).children():
        child.kill()
    assert fleet.until("RUN_ENDED", *deaf.back_up()).fields["failed"] == "0"
    assert process.poll() is None
