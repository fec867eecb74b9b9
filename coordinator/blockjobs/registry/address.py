"""The address of Redis: a URL, parsed once, with one meaning for the registry and for Celery's broker.

    redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]     rediss://... with TLS     unix://[[USER]:PASSWORD@]/PATH[?db=DB]

The password may also be the first line of a file: ``redis://USER@HOST?password_file=/PATH``.
With TLS the certificate and the name of the server are always checked before anything is sent, against the
authorities of this machine or of ``ssl_ca_certs``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from blockjobs.model.errors import NoRedis

EXPECTED: Final = (
    "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] or unix://PATH?db=DB was expected "
    "(in a password @ / ? # and % are written %40 %2F %3F %23 %25)"
)
PORT: Final = 6379
KINDS: Final = {"redis": Connection, "rediss": SSLConnection, "unix": UnixDomainSocketConnection}
FILES: Final[tuple[str, ...]] = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")  # PEM
PASSWORD_FILE: Final = "password_file"  # noqa: S105 - the name of an option
OPTIONS: Final = {
    "redis": ("db", PASSWORD_FILE), "unix": ("db", PASSWORD_FILE), "rediss": ("db", PASSWORD_FILE, *FILES)
}  # fmt: skip
# Reasons to refuse options known from other programs.
REFUSED: Final = {
    **dict.fromkeys(("ssl_cert_reqs", "ssl_check_hostname"), "the certificate of the server is always checked"),
    **dict.fromkeys(("username", "password"), "user and password stand before the @"),
    **dict.fromkeys(FILES, "it belongs to rediss://"),
    **dict.fromkeys(
        ("socket_timeout", "socket_connect_timeout", "socket_keepalive", "health_check_interval", "max_connections",
         "retry_on_timeout", "timeout"),
        "timeouts and connections are blockjobs' own",
    ),
    "protocol": "blockjobs speaks RESP3",
    "virtual_host": "the database is db",
}  # fmt: skip
SCHEMES: Final = {  # schemes known from other programs
    "sentinel": "Redis Sentinel is not supported: the URL of the primary was expected",
    "redis+sentinel": "Redis Sentinel is not supported: the URL of the primary was expected",
    "redis+cluster": "a cluster of Redis is not supported: the URL of one primary was expected",
    "redis+socket": "unix://PATH?db=DB was expected",
}


@dataclass(frozen=True, slots=True)
class Address:
    """``files``: the files for TLS, by option."""

    scheme: str
    host: str = ""
    port: int = PORT
    path: str = ""
    db: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def connection_class(self) -> type[Any]:
        return KINDS[self.scheme]

    @property
    def shown(self) -> str:
        """The address in the form of Celery's log, without secrets."""
        if self.scheme == "unix":
            return f"redis+socket://{quote(self.path)}?virtual_host={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.db}"

    def parameters(self) -> dict[str, Any]:
        """The parameters for redis-py's connection class."""
        place = {"path": self.path} if self.scheme == "unix" else {"host": self.host, "port": self.port}
        credentials = {"username": self.user or None, "password": self.password or None}
        tls = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **self.files} if self.scheme == "rediss" else {}
        return {**place, **credentials, "db": self.db, **tls}


def parse_address(url: str) -> Address:
    """Parse a URL.

    Raises:
        NoRedis: the URL cannot be used; the text contains no part of the URL that may be secret.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text quotes the URL, with the password in it
        raise _unusable_url(url, EXPECTED) from None
    scheme = parts.scheme
    if scheme in SCHEMES:
        raise _unusable_url(url, SCHEMES[scheme])
    if scheme not in KINDS or "://" not in url or parts.fragment:
        raise _unusable_url(url, EXPECTED)
    options = _parse_options(url, scheme, parts)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if PASSWORD_FILE in options:
        password = _read_password(url, options[PASSWORD_FILE], password)
    if scheme == "unix":
        path = unquote(parts.path)
        if not path.startswith("/") or parts.hostname:
            raise _unusable_url(url, EXPECTED)
        db = _database_number(url, options.get("db", "0"))
        return Address(scheme, path=path, db=db, user=user, password=password)
    if not parts.hostname or port == 0:
        raise _unusable_url(url, EXPECTED)
    below = parts.path.removeprefix("/")
    if below and "db" in options:
        raise _unusable_url(url, "the database stands behind the / and in db: one of the two was expected")
    files: dict[str, str] = {name: options[name] for name in FILES if name in options}
    _expect_files(url, files)
    db = _database_number(url, below or options.get("db", "0"))
    return Address(scheme, parts.hostname, port or PORT, db=db, user=user, password=password, files=files)


def redacted_url(url: str) -> str:
    """``url`` without any part that may be a secret, even if the URL is malformed."""
    scheme, sep, rest = url.partition("://")
    if not sep:
        return "***"
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    place, _, query = place.partition("#")[0].partition("?")
    options = "&".join(pair for pair in query.split("&") if pair.startswith("db="))
    shown = user if user.isalnum() else "***" if user else ""
    return f"{scheme}{sep}{shown}{colon and ':***'}{at}{place}{options and '?'}{options}"


def _parse_options(url: str, scheme: str, parts: SplitResult) -> dict[str, str]:
    """The options behind the question mark; every option must be known and occur once."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in OPTIONS[scheme]:
            why = REFUSED.get(name, "one of its options is not known")
            raise _unusable_url(url, f"{why}; of options {' and '.join(OPTIONS[scheme])} may be given")
        if name in found:
            raise _unusable_url(url, f"option {name} stands there twice")
        found[name] = value
    return found


def _database_number(url: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise _unusable_url(url, "its database is no number")
    return int(text)


def _expect_files(url: str, files: Mapping[str, str]) -> None:
    for name, path in files.items():
        if not os.path.isabs(path) or not os.access(path, os.R_OK):
            raise _unusable_url(url, f"{name}={path}: an absolute path of a file that can be read was expected")
    if ("ssl_certfile" in files) != ("ssl_keyfile" in files):
        raise _unusable_url(url, "ssl_certfile and ssl_keyfile were expected together")


def _read_password(url: str, path: str, given: str) -> str:
    """The first line of a file."""
    if given:
        raise _unusable_url(url, "a password and a password_file: one of the two was expected")
    try:
        with open(path, encoding="utf-8") as file:
            password = file.readline(4096).rstrip("\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not readable as text"
        raise _unusable_url(url, f"{PASSWORD_FILE}={path}: {why}: a file with a password was expected") from None
    if not password or not os.path.isabs(path):
        raise _unusable_url(url, f"{PASSWORD_FILE}={path}: the absolute path of a file with a password was expected")
    return password


def has_user_alone(url: str) -> bool:
    """Whether a URL has a user, but no password and no password file.  Raises NoRedis for an unusable URL."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
    except ValueError:
        raise _unusable_url(url, EXPECTED) from None
    return bool(parts.username) and not parts.password and PASSWORD_FILE not in query


def with_password_file(url: str, path: str) -> str:
    """The URL with the password in a file."""
    return f"{url}{'&' if '?' in url else '?'}{PASSWORD_FILE}={quote(path, safe='/')}"


def _unusable_url(url: str, why: str) -> NoRedis:
    return NoRedis(f"Redis URL '{redacted_url(url)}' cannot be used: {why}")
