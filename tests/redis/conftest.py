"""Two real servers for the suite, emptied before each test: one that forgets, and one as it must be."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from mounts import memory
from puppets import ALPHA, Fleet

from blockjobs.cli import main
from blockjobs.client.fleet import Fleet as Client
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.server import RedisServer


@pytest.fixture(scope="session")
def forgetful():
    """Durability is the subject of ``test_server``: here nothing waits for a disk."""
    with tempfile.TemporaryDirectory(dir=memory()) as place, RedisServer(Path(place)) as server:
        with connect_client(server.url) as client:
            client.config_set("appendonly", "no")
        yield server


@pytest.fixture(scope="session")
def durable():
    """Every command refuses a server that would forget."""
    with tempfile.TemporaryDirectory(dir=memory()) as place, RedisServer(Path(place)) as server:
        yield server


@pytest.fixture(scope="module")
def server(request):
    return request.getfixturevalue("durable" if request.node.get_closest_marker("durable") else "forgetful")


@pytest.fixture
def client(server):
    with connect_client(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def registry(client):
    return Registry(client)


@pytest.fixture
def fleet(client):
    return Fleet(client)


@pytest.fixture
def here(server, client):
    """A fleet from Python, whose host alpha is up."""
    with Client(server.url) as here:
        here.registry.hosts.judge(ALPHA, "up")
        yield here


@pytest.fixture
def command(server, client, monkeypatch, capfd):
    """Runs a command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("BLOCKJOBS_REDIS_URL", server.url)

    def run(*words):
        code = main.run_command_guarded(lambda: main.cli.main(list(words), standalone_mode=False))
        return code, *capfd.readouterr()

    return run
