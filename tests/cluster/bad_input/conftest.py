"""A host with one of each kind of file, and the command line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet import DEADLINE, MIB, Fleet
from sites import Said, Site

from blockjobs.cli.main import cli, run_command_guarded
from blockjobs.settings import URL


@pytest.fixture(scope="module")
def world(four_hosts: Fleet) -> Iterator[tuple[Fleet, Path]]:
    fleet = four_hosts
    fleet.mend()
    root = fleet.root("a") / "bad"
    (root / "backup").mkdir(parents=True)
    (root / "dir").mkdir()
    (root / "disk.img").write_bytes(os.urandom(3 * MIB - 5))
    (root / "there.img").write_bytes(b"precious")
    os.link(root / "disk.img", root / "twin.img")
    (root / "link.img").symlink_to("disk.img")
    (root / "away").symlink_to("backup")
    os.mkfifo(root / "fifo")
    place = os.getcwd()
    os.chdir(root)  # a socket's name may be 107 bytes long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.chdir(place)
    yield fleet, root
    shutil.rmtree(root)


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Said]]:
    """Call the command line; it has to end in time."""

    def too_late(number: int, frame: object) -> None:
        raise AssertionError(f"no end within {DEADLINE:.0f} s: {capfd.readouterr()}")

    def say(*arguments: object) -> Said:
        capfd.readouterr()
        words = [str(argument) for argument in arguments]
        signal.setitimer(signal.ITIMER_REAL, DEADLINE)
        try:
            code = run_command_guarded(lambda: cli.main(words, prog_name="blockjobs", standalone_mode=False))
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return Said(code, *capfd.readouterr())

    before = signal.signal(signal.SIGALRM, too_late)
    yield say
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def site(world: tuple[Fleet, Path], say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> Site:
    fleet, root = world
    monkeypatch.setenv(URL, fleet.server.url)
    return Site(fleet, root, say)
