"""``blockjobs up``: the whole fleet on one machine, in the foreground, kept running until it is told to stop."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click
import psutil

from blockjobs import settings
from blockjobs.cli.local import LocalHost, local_hosts, write_host
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.supervise import Program, Supervisor
from blockjobs.model.errors import BadInput, BlockjobsError, NoRedis, Refused
from blockjobs.model.liveness import WorkerName
from blockjobs.registry.address import redacted_url
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.registry.fitness import expect_fit_server
from blockjobs.server import RedisServer, last_line, make_private, socket_in
from blockjobs.settings import absolute_path, read_settings

READY_LIMIT: Final = 60.0  # seconds until every process must answer
LOOK: Final = 0.1  # seconds between two checks of the processes
GIVE_UP: Final = 4  # deaths in a row, before ready, after which waiting is useless
LEFTOVER_LIMIT: Final = 15.0  # seconds in which the processes of an `up` killed with SIGKILL end

# The order of stopping: copies park and steps end while the daemons still record the results.
COPY, STEPS, FINALIZER, COORDINATOR, FLOWER, SERVER = range(6)


@click.command()
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="Directory for state and logs."
)
@click.option("--host", "named", multiple=True, metavar="NAME[=ROOT]", help="A host to run; may be given many times.")
@click.option(
    "--root", type=click.Path(path_type=Path, readable=False), help="Root of hosts that name none  [default: .]"
)
@click.option("--slots", type=click.IntRange(1, 64), default=2, show_default=True, help="Copies at once on a host.")
@click.option("--allow-overwrite", is_flag=True, help="Let jobs that ask for it replace files, and QMP resize them.")
@click.option("--device", "devices", multiple=True, metavar="PATH", help="A block device that jobs may read.")
@click.option("--allow-in-place", is_flag=True, help="Let jobs that ask for it write those devices.")
@click.option("--flower", type=click.IntRange(1, 65535), metavar="PORT", help="Run Flower on this local port, too.")
def up(
    *,
    directory: Path | None,
    named: tuple[str, ...],
    root: Path | None,
    slots: int,
    allow_overwrite: bool,
    devices: tuple[str, ...],
    allow_in_place: bool,
    flower: int | None,
) -> None:
    """Run everything on this machine until Ctrl-C: Redis, coordinator, finalizer, workers.

    Without --host one host runs, with the name of this machine and the current directory as root.
    """
    bear_lost_output()
    if flower is not None:
        check_flower()
    known = read_settings()
    hosts = local_hosts(named, root or Path())
    directory = directory or known.dir
    if directory is None:
        raise BadInput("--dir: this user has no home directory: a directory that can be written was expected")
    directory = absolute_path(directory, "--dir")
    with locked_directory(directory), Supervisor(make_logs(directory)) as supervisor:
        url = start_server(supervisor, directory, settings.find_url(settings=known) if known.redis_url else "")
        with connect_client(url) as client:
            expect_fit_server(client, url)
        note_shared_disk(directory, hosts)
        for host in hosts:
            write_host(
                directory, host, slots, allow_overwrite=allow_overwrite, allow_in_place=allow_in_place, devices=devices
            )
        for program in local_programs(directory, url, hosts, slots, flower):
            supervisor.start(program)
        with written_env(directory, url):
            if await_ready(supervisor, url, hosts):
                names = ", ".join(host.name for host in hosts)
                click.echo(
                    f"ready: {names}; Redis {redacted_url(url)}; QMP {qmp_socket(directory)}; logs {directory / 'logs'}"
                )
                while supervisor.tend(3600):
                    pass
        click.echo("stopping", err=True)


def check_flower() -> None:
    """Raise Refused if Flower, an optional extra, is not installed."""
    try:
        found = find_spec("flower") is not None
    except ImportError:
        found = False
    if not found:
        raise Refused("--flower: Flower is not installed here: pip install 'blockjobs[flower]'")


# --- programs ----------------------------------------------------------------------------------------


def local_programs(
    directory: Path, url: str, hosts: Sequence[LocalHost], slots: int, flower: int | None
) -> Iterator[Program]:
    """The programs without the server, in the order of starting."""
    env = {**os.environ, settings.URL: url, "PYTHONUNBUFFERED": "1"}
    us = (sys.executable, "-P", "-m", "blockjobs")  # -P: a redis.py in the current directory is not ours
    qmp = qmp_socket(directory)
    if qmp.parent != directory:
        make_private(qmp.parent)
    yield Program("coordinator", (*us, "coordinator", "--qmp", str(qmp)), COORDINATOR, env, reports=True)
    yield Program(
        "finalizer", (*us, "finalizer", "--state", str(directory / "finalizer")), FINALIZER, env, reports=True
    )
    for host in hosts:
        config = write_host(directory, host, slots)
        worker = (*us, "worker", "--host", host.name, "--config", str(config), "--queue")
        yield Program(f"steps@{host.name}", (*worker, "steps"), STEPS, env, reports=True)
        yield Program(f"copy@{host.name}", (*worker, "copy"), COPY, env, reports=True)
    if flower is not None:
        argv = (*us[:-1], "blockjobs.cli.dashboard", f"--port={flower}")
        yield Program("flower", argv, FLOWER, env, reports=True)


def qmp_socket(directory: Path) -> Path:
    """The socket of QMP of the coordinator of ``up``."""
    return socket_in(directory, "qmp.sock")


# --- one `up` for each directory ---------------------------------------------------------------------


@contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Hold ``directory`` against any other ``up``; wait a little for the processes of a killed ``up``.

    Raises:
        Refused: another ``up`` runs in the directory.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as wrong:
        raise BadInput(f"--dir {directory}: {wrong.strerror}; a directory that can be written was expected") from None
    lock = os.open(directory / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up = time.monotonic() + LEFTOVER_LIMIT
        while not _try_lock(lock):
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            if _is_holder_alive(holder) or time.monotonic() > give_up:
                raise Refused(f"another `blockjobs up` runs in {directory} (process {holder}): stop it or give --dir")
            time.sleep(0.1)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_holder_alive(holder: str) -> bool:
    """Whether the ``up`` with the process id in the lock is alive, not only its remains."""
    try:
        return psutil.Process(int(holder)).status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.Error):
        return False


def make_logs(directory: Path) -> Path:
    logs = directory / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    return logs


@contextmanager
def written_env(directory: Path, url: str) -> Iterator[None]:
    """Keep ``directory/env`` during the context: the CLI finds Redis by this file."""
    settings.write_env(directory, url, qmp_socket(directory))
    try:
        yield
    finally:
        (directory / "env").unlink(missing_ok=True)


# --- until every process answers ---------------------------------------------------------------------


def start_server(supervisor: Supervisor, directory: Path, given: str) -> str:
    """The URL of an answering Redis: the given URL, else a server started and supervised here."""
    server = RedisServer(directory / "redis")
    if given and given != server.url:  # a shell with the env file of an earlier `up` means this `up`'s own server
        return given
    server.prepare()
    supervisor.start(Program("server", tuple(server.command), SERVER))
    give_up = time.monotonic() + READY_LIMIT
    while not server.answers():
        if (
            not supervisor.tend(LOOK / 2)
            or supervisor.children["server"].deaths >= GIVE_UP
            or time.monotonic() > give_up
        ):
            raise NoRedis(f"the Redis server did not start: {last_line(server.log)}")
    return server.url


def await_ready(supervisor: Supervisor, url: str, hosts: Sequence[LocalHost]) -> bool:
    """Wait until every process serves and every host may get work; return False on an earlier signal to stop.

    Raises:
        BlockjobsError: a process does not come up; quotes the last line of its log.
    """
    give_up = time.monotonic() + READY_LIMIT
    with connect_client(url) as client:
        registry = Registry(client)
        while waiting := supervisor.silent() + _missing_workers(registry, hosts):
            broken = [child for child in supervisor.children.values() if child.deaths >= GIVE_UP]
            if broken or time.monotonic() > give_up:
                name = broken[0].program.name if broken else waiting[0]
                log = supervisor.children[name].log
                raise BlockjobsError(f"{name} does not come up: {last_line(log)} (see {log})")
            if not supervisor.tend(LOOK):
                return False
    return True


def _missing_workers(registry: Registry, hosts: Sequence[LocalHost]) -> list[str]:
    """The missing workers of the hosts that the coordinator has not judged up."""
    known = registry.hosts.known()
    down = [host.name for host in hosts if host.name not in known or known[host.name].state != "up"]
    missing = {name: [each.worker for each in known[name].absent] if name in known else [] for name in down}
    return [f"{worker}@{name}" for name, workers in missing.items() for worker in workers or [WorkerName.STEPS]]


def note_shared_disk(directory: Path, hosts: Sequence[LocalHost]) -> None:
    """Note a shared disk: Redis waits for its disk at every write, and answered in 167 ms (p99) beside such a copy."""
    device = directory.stat().st_dev
    shared = [host.name for host in hosts if host.root.stat().st_dev == device]
    if shared:
        click.echo(
            f"note: Redis is on the same disk as the root of {', '.join(shared)}: heavy copies slow it down", err=True
        )
