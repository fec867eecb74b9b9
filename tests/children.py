"""Processes that tests start, stop and end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

_stopped: list[subprocess.Popen[bytes]] = []


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP; it goes on at the end of the test at the latest, however that ends."""
    _stopped.append(process)
    process.send_signal(signal.SIGSTOP)


def continue_stopped() -> None:
    """SIGCONT to every process that ``stop_process`` has stopped and that was not waited for."""
    while _stopped:
        _stopped.pop().send_signal(signal.SIGCONT)


def end_child(child: int) -> None:
    """SIGKILL a child, and wait for it; if somebody has waited for it already, its pid may be another process's."""
    with suppress(ChildProcessError):
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
