"""QMP over TCP: with TLS and a certificate of ours, or not at all."""

from __future__ import annotations

import json
import socket
import ssl

import pytest
from certificates import make_certificates

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.probe import Probe
from blockjobs.ask.resize import Resize
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import BadInput
from blockjobs.qmp import fleet as spoken
from blockjobs.qmp.server import QmpServer, Tls


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def port(registry_server, authority):
    with Fleet(registry_server.url) as here:
        tls = Tls("127.0.0.1", 0, authority / "server.pem", authority / "server.key", authority / "ca.pem")
        doorbell = Doorbell(registry_server.url)
        server = QmpServer(
            spoken.Backend(here, Probe(here.registry, doorbell), Resize(here.registry, doorbell)), None, tls
        )
        server.start()
        yield server.port
        server.close()


def greeted(port, authority, name):
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    if name:
        context.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        line.sendall(b'{"execute": "qmp_capabilities"}\n')
        with line.makefile("rb") as file:
            lines = [file.readline() for _ in range(2)]
    if not all(lines):  # a client learns only behind its side of the handshake that it is not wanted
        raise ConnectionAbortedError("the server has hung up")
    return [json.loads(each) for each in lines]


def test_who_has_a_certificate_of_the_authority_is_served(port, authority):
    greeting, reply = greeted(port, authority, "client")
    assert "QMP" in greeting
    assert reply == {"return": {}}


@pytest.mark.parametrize("name", ["", "stranger"])
def test_nobody_else_is(port, authority, name):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        greeted(port, authority, name)


def test_without_a_certificate_there_is_no_server(tmp_path):
    with pytest.raises(BadInput, match="TLS certificate, key or authority cannot be used"):
        Tls("127.0.0.1", 0, tmp_path / "a", tmp_path / "b", tmp_path / "c").context()
