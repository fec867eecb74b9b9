"""Redis behind TLS: registry and broker check the server's certificate and its name before they say anything."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing, suppress

import pytest
import redis
from certificates import make_certificates

from blockjobs.ask.doorbell import Doorbell
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import NoRedis
from blockjobs.model.ids import Host, JobId
from blockjobs.registry.connection import connect_client

pytestmark = pytest.mark.durable

PASSWORD = "let-me-in-4711"  # noqa: S105


class Terminator:
    """A port with TLS in front of a server's socket, which notes all that clients send."""

    def __init__(self, behind, place, name, *, wants=""):
        self._behind, self.said = behind, bytearray()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(place / f"{name}.pem", place / f"{name}.key")
        if wants:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(place / wants)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain):
        with (
            suppress(OSError), closing(plain), self._context.wrap_socket(plain, server_side=True) as client,
            socket.socket(socket.AF_UNIX) as server,
        ):  # fmt: skip
            server.connect(self._behind)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server, self.said)
            back.join()

    def close(self):
        self._listener.close()


def _pump(source, sink, heard=None):
    with suppress(OSError):
        while data := source.recv(65536):
            if heard is not None:
                heard += data
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("redis-tls"))


@pytest.fixture
def behind(server, client, place):
    """A terminator with the certificate of that name, in front of a Redis that wants a password."""
    client.execute_command("ACL", "SETUSER", "ann", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    opened = []

    def begin(name, **options):
        opened.append(Terminator(str(server.socket), place, name, **options))
        return opened[-1]

    yield begin
    for each in opened:
        each.close()
    client.execute_command("ACL", "DELUSER", "ann")


def url(port, **options):
    """``options``: files of TLS, by the ends of their names."""
    query = "&".join(f"ssl_{name}={path}" for name, path in options.items())
    return f"rediss://ann:{PASSWORD}@127.0.0.1:{port}/0?{query}"


def ring(at):
    Doorbell(at).copy(Host("alpha"), JobId("j"))


def test_with_the_authority_of_the_server_registry_and_bells_come_through(behind, place, client, caplog):
    at = url(behind("server").port, ca_certs=place / "ca.pem")
    with Fleet(at) as fleet:
        assert fleet.runs() == []
    ring(at)
    assert client.llen("bj:celery:copy.alpha") == 1
    assert caplog.text == "", "nobody says that the connection is not secure"


def test_a_server_that_wants_certificates_is_given_that_of_the_url(behind, place, client):
    terminator = behind("server", wants="ca.pem")
    files = {"ca_certs": place / "ca.pem", "certfile": place / "client.pem", "keyfile": place / "client.key"}
    ring(url(terminator.port, **files))
    assert client.llen("bj:celery:copy.alpha") == 1
    ring(url(terminator.port, ca_certs=place / "ca.pem"))
    assert client.llen("bj:celery:copy.alpha") == 1, "without one it is turned away"


@pytest.mark.parametrize("name", ["stranger", "elsewhere"])
@pytest.mark.parametrize("given", [True, False], ids=["with the authority", "with those of this machine"])
def test_another_certificate_or_another_name_is_told_nothing(behind, place, client, name, given):
    """Neither the registry's connection nor the broker's says a word, the password least of all."""
    terminator = behind(name)
    at = url(terminator.port, **({"ca_certs": place / "ca.pem"} if given else {}))
    with pytest.raises(NoRedis, match="certificate verify failed"):
        Fleet(at)
    ring(at)
    assert client.llen("bj:celery:copy.alpha") == 0
    assert bytes(terminator.said) == b""


def test_the_control_that_checks_nothing_tells_the_stranger_its_password(behind, place):
    terminator = behind("stranger")
    careless = {"ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
    with closing(redis.Redis("127.0.0.1", terminator.port, username="ann", password=PASSWORD, **careless)) as client:
        assert client.ping()
    assert PASSWORD.encode() in bytes(terminator.said)


def test_whoever_speaks_no_tls_is_not_answered(behind):
    terminator = behind("server")
    at = f"redis://ann:{PASSWORD}@127.0.0.1:{terminator.port}/0"
    with closing(connect_client(at)) as client, pytest.raises(redis.RedisError):
        client.ping()
    assert bytes(terminator.said) == b""
