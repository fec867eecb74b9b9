"""``blockjobs up`` as a user meets it: ready, kept running, stopped, killed; never a process left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from fleet import alive
from nobody import as_nobody, give_to_nobody, run_as_nobody

from blockjobs import settings
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.server import RedisServer

DEADLINE = 60.0  # seconds, for a loaded machine; a few are usual
BLOCKJOBS = (sys.executable, "-P", "-m", "blockjobs")


@dataclass
class Up:
    process: subprocess.Popen[str]
    directory: Path
    ready: str = ""

    @property
    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def of(self, *words: str) -> list[psutil.Process]:
        """The children (not theirs) that have all ``words`` in their command line."""
        children = filter(alive, psutil.Process(self.process.pid).children())
        return [each for each in children if all(word in " ".join(_words(each)) for word in words)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it went between two looks
        return []


@pytest.fixture
def start(tmp_path) -> Iterator[object]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, directory: Path = tmp_path / "state", url: str = "", nobody: bool = False) -> Up:
        env = {name: value for name, value in os.environ.items() if not name.startswith("BLOCKJOBS_")}
        words = ("up", "--dir", str(directory), *arguments)
        process = subprocess.Popen(
            as_nobody(*words) if nobody else [*BLOCKJOBS, *words],
            env=env | ({settings.URL: url} if url else {}), cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        return Up(process, directory, process.stdout.readline())

    yield start
    for process in started:
        with process:
            process.terminate()


def await_that(happened) -> None:
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline, "the deadline passed"
        select.select([], [], [], 0.02)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(map(alive, processes))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of nobody's, below directories that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        give_to_nobody(Path(name))
        yield Path(name)


def test_it_says_ready_once_and_stops_without_a_trace_also_for_a_user_of_whom_nothing_is_known(start, place):
    (place / "a").mkdir()
    (place / "disk.img").write_bytes(os.urandom(1 << 20))
    give_to_nobody(place / "a", place / "disk.img")
    up = start("--host", f"a={place}/a", "--host", "b", "--root", str(place), directory=place / "state", nobody=True)
    assert up.ready.startswith("ready: a, b; "), up.process.stderr.read()
    url = settings.read_env(up.directory)
    with connect_client(url) as client:
        assert all(Registry(client).hosts.daemons().values())
        assert [(host.name, host.state) for host in Registry(client).hosts.views()] == [("a", "up"), ("b", "up")]
    done = run_as_nobody("backup", f"b:{place}/disk.img", f"b:{place}/copy.img", env={settings.URL: url})
    assert done.returncode == 0, done.stderr
    assert (place / "copy.img").read_bytes() == (place / "disk.img").read_bytes()
    family = up.family
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(DEADLINE) == 0
    assert gone(family)
    assert up.process.stdout.read() == ""
    assert not (up.directory / "env").exists()
    assert "Traceback" not in "".join(log.read_text() for log in (up.directory / "logs").iterdir())


def test_whatever_dies_is_started_again_the_server_with_its_data(start, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    up = start("--host", "a")
    (of_the_killed,) = os.listdir(temporary)
    with connect_client(settings.read_env(up.directory)) as client:
        client.set("kept", "yes")
        for words in (("unixsocket:",), ("coordinator",), ("finalizer",), ("worker", "steps"), ("worker", "copy")):
            (victim,) = up.of(*words)
            children = victim.children(recursive=True)
            victim.kill()
            await_that(lambda words=words, victim=victim: up.of(*words) not in ([], [victim]))
            await_that(lambda children=children: gone(children))
        await_that(RedisServer(up.directory / "redis").answers)
        assert client.get("kept") == b"yes"
    await_that(lambda: len(os.listdir(temporary)) == 2)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(DEADLINE) == 0
    assert os.listdir(temporary) == [of_the_killed], "a copy worker removes its own, unless it is killed"
    assert of_the_killed.startswith("pymp-")


def test_when_it_is_killed_itself_nothing_is_left_and_the_next_one_starts(start):
    up = start("--host", "a")
    family = up.family
    up.process.kill()
    again = start("--host", "a")
    assert again.ready.startswith("ready: a;")
    assert gone(family)


def test_a_second_one_in_the_same_directory_is_refused(start):
    first, second = start("--host", "a"), start("--host", "b")
    assert second.process.wait(DEADLINE) == 2
    assert (
        f"another `blockjobs up` runs in {first.directory} (process {first.process.pid})"
        in second.process.stderr.read()
    )


def test_a_given_redis_is_used_and_left_alone(start, tmp_path):
    with RedisServer(tmp_path / "given") as server:
        up = start("--host", "a", url=server.url)
        assert server.url in up.ready
        assert up.of("unixsocket:") == []
        up.process.terminate()
        assert up.process.wait(DEADLINE) == 0
        assert server.answers()


def test_a_redis_that_evicts_is_refused(start, tmp_path):
    with RedisServer(tmp_path / "given") as server:
        with connect_client(server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        up = start("--host", "a", url=server.url)
        assert up.process.wait(DEADLINE) == 3
        assert "'noeviction' is needed" in up.process.stderr.read()


# A program that cannot start: its interpreter ends before our first line, as for a module that is not installed.
BROKEN = """
import os, sys
if {word!r} in sys.orig_argv:
    print("No module named 'nonesuch'", file=sys.stderr, flush=True)
    os._exit(1)
"""


@pytest.mark.parametrize("word", ["copy", "steps", "coordinator"])
def test_up_is_not_ready_while_one_of_its_programs_cannot_start_and_says_why(start, tmp_path, word, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sitecustomize.py").write_text(BROKEN.format(word=word))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    up = start("--host", "a")
    name = word if word == "coordinator" else f"{word}@a"
    assert up.ready == ""
    assert up.process.wait(DEADLINE) == 1
    said = up.process.stderr.read()
    assert f"blockjobs: {name} does not come up: No module named 'nonesuch'" in said
    assert (
        f"{name}: ended with exit code 1, is started again in 0.4 s; its last line: No module named 'nonesuch'" in said
    )
