"""Debian's own Redis server, which is older than a wheel's and what most machines run: ``.ci/tools`` gets it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CACHE = Path("/var/cache/blockjobs-tests/redis/usr/bin/redis-server")


def find_debian_redis() -> str:
    """The program; skips the test where there is none."""
    for path in (str(CACHE), shutil.which("redis-server")):
        if path and os.access(path, os.X_OK):
            return path
    pytest.skip("Debian's redis-server is not here: make tools, as root")
