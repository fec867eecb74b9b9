"""Unmounting what a test has mounted, on a machine where others look at every file system."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

BUSY = 30.0  # seconds: the tests beside this one open each mounted file system for moments, to see what it is


def unmount(top: str | Path) -> None:
    """Unmount what lies at ``top`` as soon as nobody is in it; fail where somebody stays."""
    until = time.monotonic() + BUSY
    while (done := subprocess.run(["umount", str(top)], capture_output=True, text=True, check=False)).returncode:
        assert "busy" in done.stderr, done.stderr
        assert time.monotonic() < until, done.stderr
