"""What was frozen is thawed: when it was asked for, when its time is over, and when whoever froze it is dead."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from children import end_child

from blockjobs.model.errors import JobFailed
from blockworker.cuts.quiesce import Quiesce

DEADLINE = 20.0  # seconds; for a busy machine

# Of the shell, which is there at once also where the machine is busy.
COMMAND = """#!/bin/sh
word=$1; shift
echo "$word $(date +%s.%N) $*" >> "$0.calls"
if [ -e "$0.$word" ]; then sleep 1000; fi
if rm "$0.$word-fails" 2>/dev/null; then echo "it does not answer" >&2; exit 1; fi
"""


class Command:
    """A quiesce command that notes its calls: it hangs, or fails once, where a file says so."""

    def __init__(self, path: Path) -> None:
        self.path, self.freezing = path, []
        path.write_text(COMMAND)
        path.chmod(0o700)

    def quiesce(self, limit=0.0, paths=("/srv/a.img",)):
        return Quiesce("db", (str(self.path),), paths, limit=limit)

    def set(self, what):
        Path(f"{self.path}.{what}").touch()

    @property
    def calls(self):
        """Each word, when, and its paths."""
        try:
            lines = Path(f"{self.path}.calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(word, float(at), paths) for word, at, *paths in map(str.split, lines)]

    @property
    def words(self):
        return [word for word, _, _ in self.calls]

    def until(self, *words):
        deadline = time.monotonic() + DEADLINE
        while self.words != list(words):
            assert time.monotonic() < deadline, self.words
            threading.Event().wait(0.01)

    def frozen_by_another(self, limit):
        """A process that freezes, and then is as it was told to be: its pid."""
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.quiesce(limit).freeze()
                os.write(tell, b"!")
                signal.pause()
            finally:
                os._exit(1)
        self.freezing.append(child)
        os.close(tell)
        assert os.read(ready, 1) == b"!"
        os.close(ready)
        return child


@pytest.fixture
def command(tmp_path):
    command = Command(tmp_path / "db")
    yield command
    for child in command.freezing:
        end_child(child)  # most tests end it themselves


def test_every_source_is_named_in_one_call(command):
    quiesce = command.quiesce(5.0, ["/srv/a.img", "/srv/b.img"])
    assert quiesce.freeze()
    stood = quiesce.thaw()
    assert [(word, paths) for word, _, paths in command.calls] == [
        ("freeze", ["/srv/a.img", "/srv/b.img"]),
        ("thaw", ["/srv/a.img", "/srv/b.img"]),
    ]
    (_, frozen, _), (_, thawed, _) = command.calls
    assert 0 < stood < 5.0
    assert stood >= thawed - frozen - 1.0


def test_whoever_froze_is_killed_and_the_thaw_comes_at_once(command):
    """With a deadline of an hour: it is the death that thaws."""
    child = command.frozen_by_another(3600.0)
    assert command.words == ["freeze"]
    killed = time.time()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    command.until("freeze", "thaw")
    assert command.calls[1][1] - killed < 2.0


def test_whoever_froze_is_stopped_and_the_thaw_comes_at_the_deadline(command):
    child = command.frozen_by_another(2.0)
    os.kill(child, signal.SIGSTOP)
    try:
        command.until("freeze", "thaw")
        assert 1.9 < command.calls[1][1] - command.calls[0][1] < 4.0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_without_a_freezer_a_killed_one_leaves_its_source_frozen(command):
    """The negative control: it is the freezer that thaws, not something else."""
    child = command.frozen_by_another(3600.0)
    (freezer,) = psutil.Process(child).children()
    freezer.suspend()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    threading.Event().wait(0.5)
    assert command.words == ["freeze"]
    freezer.resume()
    command.until("freeze", "thaw")


def test_a_freezer_ignores_that_it_is_asked_to_end(command):
    child = command.frozen_by_another(3600.0)
    (freezer,) = psutil.Process(child).children()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        freezer.send_signal(number)
    threading.Event().wait(0.3)
    assert freezer.status() != psutil.STATUS_ZOMBIE
    assert command.words == ["freeze"]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    command.until("freeze", "thaw")


def test_a_freezer_that_is_killed_itself_is_stood_in_for(command):
    quiesce = command.quiesce(3600.0)
    quiesce.freeze()
    quiesce._freezer.kill()
    assert quiesce.thaw() is None, "for how long it stood still nobody knows"
    assert command.words == ["freeze", "thaw"]


def test_a_thaw_that_comes_late_is_told(command):
    quiesce = command.quiesce(2.0)
    quiesce.freeze()
    command.until("freeze", "thaw")
    assert quiesce.thaw() is None
    assert command.words == ["freeze", "thaw"]


def test_a_freeze_that_hangs_is_killed_and_thawed_at_the_deadline(command):
    command.set("freeze")
    began = time.monotonic()
    with pytest.raises(JobFailed, match="command 'db' took too long on freeze"):
        command.quiesce(2.0).freeze()
    assert time.monotonic() - began < 10
    assert command.words == ["freeze", "thaw"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(command.path) in (p.info["cmdline"] or [])]


def test_whoever_freezes_is_killed_while_the_command_runs_and_it_is_thawed(command):
    command.set("freeze")
    child = os.fork()
    if child == 0:
        try:
            command.quiesce(3600.0).freeze()
        finally:
            os._exit(1)
    command.until("freeze")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    command.until("freeze", "thaw")


def test_a_thaw_that_fails_is_tried_again(command):
    command.set("thaw-fails")
    quiesce = command.quiesce(5.0)
    quiesce.freeze()
    assert quiesce.thaw() is not None
    assert command.words == ["freeze", "thaw", "thaw"]


def test_a_command_that_cannot_be_started_freezes_nothing(tmp_path):
    with pytest.raises(JobFailed, match="command 'db'"):
        Quiesce("db", (str(tmp_path / "nowhere"),), ["/srv/a.img"]).freeze()
