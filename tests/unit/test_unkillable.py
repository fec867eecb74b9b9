"""A process of an attempt that does not die of SIGKILL is reported, once."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import psutil

from blockjobs.model.ids import Host
from blockjobs.registry.attempts import AttemptStanding
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.watch import watcher


def test_a_process_that_outlives_its_sigkill_is_reported_once(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(watcher, "seconds_since_boot", lambda: now[0])
    config = HostConfig(name=Host("a"), read_roots=(), write_roots=())
    here = watcher.Watcher(SimpleNamespace(host=Host("a")), Roots(config), tidy=lambda: None)
    standing = AttemptStanding(job="R.a", txn="R", token=1, attempt="a0", cancelled=False, fenced=True)
    with subprocess.Popen(["sleep", "60"]) as child:  # nobody asks how it ended: its process id stays
        process = psutil.Process(child.pid)
        for now[0] in (0.0, watcher.DEATH, watcher.DEATH + 0.1, 60.0):
            here._kill(standing, process)
        child.wait(20)
    told = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert told == [f"job R.a: process {process.pid} cannot be killed (a dead disk?)"]
