"""A host is up when both of its workers beat; as long as nobody can say of one, it stays as it was judged."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from blockjobs.model.liveness import (
    Absence,
    Word,
    WorkerName,
    WorkerProcess,
    judge_host,
    judge_worker,
    lone_absence,
)
from blockworker.host import machine
from blockworker.system.processstart import read_start

STEPS, COPY = WorkerName.STEPS, WorkerName.COPY
UP, DOWN, LEFT, UNSURE = Word.UP, Word.DOWN, Word.LEFT, Word.UNSURE

WORKERS = {  # what its card says, whether it ever beat, whether it is silent, has moved, was there: what is known of it
    "beats": (("here", True, False, True, True), UP),
    "was-there-when-the-observer-came": (("here", True, False, False, True), UP),
    "stands-still": (("here", True, True, True, True), DOWN),
    "comes-back": (("here", True, False, True, False), UP),
    "was-down-when-the-observer-came": (("here", True, False, False, False), UNSURE),
    "began-and-left": (("left", True, False, True, True), LEFT),
    "left-long-ago": (("left", True, True, False, False), LEFT),
    "never-beat": (("", False, False, False, True), UNSURE),
    "never-beat-for-long": (("", False, True, False, True), DOWN),
    "lost-its-name": (("lost", True, True, False, True), DOWN),
}


@pytest.mark.parametrize(("known", "word"), WORKERS.values(), ids=WORKERS)
def test_a_worker_is_judged_by_what_was_seen_of_it(known, word):
    says, beaten, silent, moved, was_there = known
    assert judge_worker(says=says, beaten=beaten, silent=silent, moved=moved, was_there=was_there) is word


@pytest.mark.parametrize(
    ("steps", "copy", "state"),
    [
        (UP, UP, "up"), (UP, DOWN, "down"), (DOWN, UP, "down"), (DOWN, DOWN, "down"), (UP, LEFT, "down"),
        (LEFT, UP, "down"), (LEFT, DOWN, "down"), (LEFT, LEFT, "left"), (UP, UNSURE, None), (UNSURE, DOWN, None),
    ],
)  # fmt: skip
def test_a_host_is_what_both_of_its_workers_are(steps, copy, state):
    assert judge_host({STEPS: steps, COPY: copy}) == state


def test_the_one_worker_that_is_missing_is_named_and_no_other():
    copy, steps = Absence(COPY, DOWN, 1), Absence(STEPS, LEFT, 2)
    assert [lone_absence(each) for each in ((), (copy,), (steps,), (copy, steps))] == [
        "", "its copy worker does not beat", "its steps worker was stopped", "",
    ]  # fmt: skip


def test_a_process_is_read_back_from_its_text_and_nothing_else_is_one():
    mine = machine.this_process()
    assert WorkerProcess.parse(mine.text) == mine
    assert [WorkerProcess.parse(text) for text in ("", "a b", "x 1 2 three node", "one two 3 4 node")] == [None] * 4


def child():
    return subprocess.Popen(["sleep", "600"])


def seen(pid, **otherwise):
    """A process as it would have named itself."""
    return machine.this_process()._replace(pid=pid, start=read_start(pid), **otherwise)


def test_a_process_that_ended_is_gone_and_one_that_runs_or_cannot_be_seen_is_not():
    with child() as running, child() as killed, child() as zombie:
        names = {"running": seen(running.pid), "killed": seen(killed.pid), "zombie": seen(zombie.pid)}
        names["reused"] = names["running"]._replace(start=1.0)
        for process in (killed, zombie):
            process.kill()
        killed.wait()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        names["elsewhere"] = names["killed"]._replace(namespace=1)
        gone = {name for name, process in names.items() if machine.is_gone(process)}
        running.send_signal(signal.SIGKILL)
    assert gone == {"killed", "zombie", "reused"}
