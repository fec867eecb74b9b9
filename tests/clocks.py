"""A server whose wall clock somebody puts, and whose monotonic clocks nobody does."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockjobs.server import RedisServer

SOURCE = Path(__file__).with_name("wallclock.c")


class Wall:
    """The wall clock of the programs that are started with its environment."""

    def __init__(self, place: Path) -> None:
        self._library, self._file = place / "wallclock.so", place / "wallclock"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE, "-ldl"], check=True)
        self._file.write_bytes(bytes(8))

    def put(self, seconds: float) -> None:
        """Have it show so much more than the time of this machine, from now on."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", round(seconds * 1e9)))

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK": str(self._file)}


@contextmanager
def server_with_a_clock(place: Path) -> Iterator[tuple[RedisServer, Wall]]:
    """A server and its wall clock."""
    wall = Wall(place)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in wall.environment.items():
            patched.setenv(name, value)
        server = RedisServer(place / "redis")
        server.start()
    try:
        yield server, wall
    finally:
        server.stop()
