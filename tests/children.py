"""Processes that tests fork."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def end_child(child: int) -> None:
    """SIGKILL a child, and wait for it; if somebody has waited for it already, its pid may be another process's."""
    with suppress(ChildProcessError):
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
