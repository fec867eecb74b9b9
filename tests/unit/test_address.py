"""A URL of Redis is parsed once, has one meaning, and is refused with a reason that shows no secret."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from blockjobs.model.errors import NoRedis
from blockjobs.registry.address import has_user_alone, parse_address, redacted_url, with_password_file
from blockjobs.settings import Settings, find_url

SECRET = "pass-4711-word"  # noqa: S105

MEANT = {
    "redis://h": (Connection, {"host": "h", "port": 6379, "db": 0, "username": None, "password": None}),
    "redis://h:1/2": (Connection, {"host": "h", "port": 1, "db": 2}),
    "redis://h?db=3": (Connection, {"host": "h", "db": 3}),
    "redis://[::1]:7/0": (Connection, {"host": "::1", "port": 7}),
    "redis://:p%40%2F%3F%23%25w@h": (Connection, {"username": None, "password": "p@/?#%w"}),
    "redis://ann:p@h": (Connection, {"username": "ann", "password": "p"}),
    "unix:///run/redis.sock": (UnixDomainSocketConnection, {"path": "/run/redis.sock", "db": 0}),
    "unix://ann:p@/run/a%20b.sock?db=4": (
        UnixDomainSocketConnection,
        {"path": "/run/a b.sock", "db": 4, "username": "ann", "password": "p"},
    ),
    "rediss://h": (SSLConnection, {"host": "h", "ssl_cert_reqs": "required", "ssl_check_hostname": True}),
}


@pytest.mark.parametrize(("url", "meant"), MEANT.items(), ids=MEANT)
def test_a_url_has_one_meaning(url, meant):
    address, (kind, parameters) = parse_address(url), meant
    assert address.connection_class is kind
    assert parameters.items() <= address.parameters().items()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"sentinel://:{SECRET}@h:26379/0", "Redis Sentinel is not supported"),
        (f"redis+sentinel://:{SECRET}@h", "Redis Sentinel is not supported"),
        (f"redis+cluster://:{SECRET}@h", "a cluster of Redis is not supported"),
        (f"redis+socket://:{SECRET}@/run/redis.sock", "unix://PATH"),
        (f"http://:{SECRET}@h", "was expected"),
        ("redis://", "was expected"),
        ("redis://h:0", "was expected"),
        ("redis://h:66000", "was expected"),
        ("redis://h/one", "its database is no number"),
        ("redis://h/-1", "its database is no number"),
        ("redis://h/\u0661", "its database is no number"),
        ("redis://h/1234567890", "its database is no number"),
        ("redis://h/1?db=1", "the database stands behind the / and in db"),
        ("redis://h?db=1&db=2", "option db stands there twice"),
        (f"redis://h?password={SECRET}", "user and password stand before the @"),
        ("redis://h?ssl_cert_reqs=none", "the certificate of the server is always checked"),
        ("rediss://h?ssl_cert_reqs=none", "the certificate of the server is always checked"),
        ("rediss://h?ssl_check_hostname=false", "the certificate of the server is always checked"),
        ("redis://h?ssl_ca_certs=/etc/ca.pem", "it belongs to rediss://"),
        ("redis://h?socket_timeout=9", "timeouts and connections are blockjobs' own"),
        ("redis://h?protocol=2", "blockjobs speaks RESP3"),
        (f"redis://h?secret={SECRET}", "one of its options is not known"),
        ("rediss://h?ssl_ca_certs=ca.pem", "ssl_ca_certs=ca.pem: an absolute path"),
        ("rediss://h?ssl_ca_certs=/nowhere/ca.pem", "a file that can be read was expected"),
        ("rediss://h?ssl_certfile=/etc/hostname", "ssl_certfile and ssl_keyfile were expected together"),
        ("unix://run/redis.sock", "was expected"),
        ("unix://", "was expected"),
        ("unix:/run/redis.sock", "was expected"),
        (f"redis://u:{SECRET}#x@h", "was expected"),
        (f"redis://h#{SECRET}", "was expected"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason_and_without_its_secret(url, why):
    with pytest.raises(NoRedis, match=r"Redis URL .* cannot be used: ") as refused:
        parse_address(url)
    assert why in str(refused.value)
    assert SECRET not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (SECRET, "***"),
        (f"redis:{SECRET}@h", "***"),
        (f"redis://u:{SECRET}@{SECRET}@h/1", "redis://u:***@h/1"),
        (f"redis://{SECRET}@h", "redis://***@h"),
        (f"redis://h/1?db=2&password={SECRET}&x", "redis://h/1?db=2"),
        (f"redis://h/1#{SECRET}", "redis://h/1"),
        (f"redis://h/1?db=2#{SECRET}", "redis://h/1?db=2"),
    ],
)
def test_nothing_of_a_url_is_shown_that_may_be_secret_however_malformed_it_is(url, shown):
    assert redacted_url(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://u:{SECRET}@h", "redis://h:6379/0"),
        (f"rediss://u:{SECRET}@[::1]:7/2", "rediss://[::1]:7/2"),
        (f"unix://u:{SECRET}@/run/a%20b.sock?db=4", "redis+socket:///run/a%20b.sock?virtual_host=4"),
    ],
)
def test_an_address_shows_no_password(url, shown):
    assert SECRET not in repr(parse_address(url))
    assert parse_address(url).shown == shown


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a password"
    path.write_text(f"{SECRET}\nnot of the password\n")
    return path


@pytest.mark.parametrize("url", ["redis://ann@h:1/2", "rediss://ann@h", "unix://ann@/run/a.sock?db=4"])
def test_a_password_may_lie_in_a_file(file, url):
    whole = with_password_file(url, str(file))
    assert (parse_address(whole).user, parse_address(whole).password) == ("ann", SECRET)
    assert replace(parse_address(whole), password="") == parse_address(url), "nothing else changes"
    for text in (whole, redacted_url(whole), repr(parse_address(whole)), parse_address(whole).shown):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("url", "alone"),
    [("redis://ann@h", True), ("redis://ann:x@h", False), ("redis://h", False), ("redis://:x@h", False),
     ("unix://ann@/a.sock?db=1", True), ("redis://ann@h?password_file=/x", False)],
)  # fmt: skip
def test_a_file_is_for_a_user_whose_password_the_url_does_not_have(monkeypatch, file, url, alone):
    monkeypatch.setenv("BLOCKJOBS_REDIS_PASSWORD_FILE", str(file))
    assert has_user_alone(url) is alone
    for found in (find_url(url), find_url(None, Settings(redis_url=url, redis_password_file=file))):
        assert found == (with_password_file(url, str(file)) if alone else url)


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file or directory"), (b"", "the absolute path of a file"), (b"\nx", "absolute path"),
     (b"\xff\xfe", "not readable as text")],
    ids=["missing", "empty", "empty line", "no text"],
)  # fmt: skip
def test_a_file_without_a_password_is_refused_by_name(tmp_path, content, why):
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NoRedis, match=rf"password_file={path}: .*{why}"):
        parse_address(with_password_file("redis://ann@h", str(path)))


def test_a_password_twice_or_a_relative_path_is_refused(file, monkeypatch):
    with pytest.raises(NoRedis, match="one of the two was expected"):
        parse_address(f"redis://ann:x@h?password_file={file}")
    monkeypatch.chdir(file.parent)
    with pytest.raises(NoRedis, match="the absolute path"):
        parse_address("redis://ann@h?password_file=a%20password")
    with pytest.raises(NoRedis, match="an absolute path of a file"):
        parse_address("rediss://h?ssl_ca_certs=a%20password")
