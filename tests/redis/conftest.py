"""One real server for the suite, emptied before each test."""

from __future__ import annotations

import pytest
from puppets import Fleet

from blockjobs.server import Server
from blockjobs.store.connection import connect
from blockjobs.store.registry import Registry


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Durability is the subject of ``test_server``: here nothing waits for a disk."""
    with Server(tmp_path_factory.mktemp("redis")) as server:
        with connect(server.url) as client:
            client.config_set("appendonly", "no")
        yield server


@pytest.fixture
def client(server):
    with connect(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def registry(client):
    return Registry(client)


@pytest.fixture
def fleet(client):
    return Fleet(client)
