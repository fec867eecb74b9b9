"""A fleet of real processes for the stories: a server, both daemons, two workers a host, real disks.

Every wait is for an event of the stream, with a deadline.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import redis
from children import stop_process
from forks import BLOCKJOBS, Forked, forks
from mounts import memory

from blockjobs.model import ids, templates
from blockjobs.model.errors import VerbRefused
from blockjobs.model.ids import Host, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.runs import PlanOptions, RunPlan, job_volumes
from blockjobs.process.spawn import spawn_child
from blockjobs.registry import keys
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import HostRegistry, Registry
from blockjobs.registry.events import Event
from blockjobs.registry.views import JobView
from blockjobs.server import RedisServer
from blockworker.host.config import HostConfig, host_config_text

MIB = 1 << 20
LOG = 64 * MIB  # bytes that a registry needs here, with some to spare
DEADLINE = 120.0  # seconds; long, for machines that are busy with more than this
_numbers = count(1)


USERS = (Path(__file__).parents[2] / "deploy" / "users.acl").read_text(encoding="utf-8").splitlines()
SECRET = "change-me"  # noqa: S105 - of a server in this directory


class ServerWithUsers(RedisServer):
    """A server that has the shipped users, and lets this machine's tests in without a password.

    Every process of a fleet has the rights of its user and no others; what was refused to any is in ``ACL LOG``.
    """

    def __init__(self, directory: Path, hosts: Iterable[str]) -> None:
        super().__init__(directory)
        lines = ["user default on nopass ~* &* +@all"]
        for line in USERS[1:]:
            mine = re.sub(r">\S+", f">{SECRET}", line)
            lines += [mine.replace("web1", host) for host in hosts] if "web1" in mine else [mine]
        self._users = directory.with_name("users.acl")
        self._users.write_text("\n".join(lines) + "\n")

    def prepare(self) -> None:
        super().prepare()
        with self._conf.open("a") as conf:
            conf.write(f"aclfile {self._users}\n")

    def url_of(self, user: str) -> str:
        return self.url.replace("unix://", f"unix://{user}:{SECRET}@")


class Fleet:
    """Processes by name: ``server``, ``coordinator``, ``finalizer``, ``copy@HOST``, ``steps@HOST``."""

    def __init__(
        self, place: Path, hosts: Iterable[str], *, slots: int = 2, allow_overwrite: bool = False, qmp: bool = False,
        devices: Iterable[str] = (), env: Mapping[str, str] | None = None, forked: bool = True,
        daemons: Iterable[str] = ("coordinator", "finalizer"), **config: Any,
    ) -> None:  # fmt: skip
        """``devices``: what each host may read, and write in place; ``config``: more of each host's; ``env``: all's.

        ``forked``: its processes are forks of one that has imported all, see ``forks``; else each imports all itself.
        ``daemons``: processes of the control plane; a second coordinator is ``coordinator.2``.
        """
        self.place, self.forked = place, forked
        self.qmp = place / "qmp.sock" if qmp else None
        # Each of Celery's pools has a directory there, which one that is killed leaves.  A short path: sockets, too.
        self.tmp = Path(tempfile.mkdtemp(prefix="fleet-"))
        self.env = {"TMPDIR": str(self.tmp), **(env or {})}
        self.hosts = [Host(host) for host in hosts]
        # In memory where that is possible: processes die here, no power, and each change of the registry is a flush.
        self.files = Path(tempfile.mkdtemp(prefix="fleet-registry-", dir=memory(LOG)))
        self.server = self.make_server(self.files / "redis").start()
        self.client = connect_client(self.server.url)
        self.registry = Registry(self.client)
        self.processes: dict[str, subprocess.Popen[bytes] | Forked] = {}
        (place / "logs").mkdir()
        self.seq = "0"
        self._never = threading.Event()
        for host in self.hosts:
            self.root(host).mkdir(exist_ok=True)
            mine = {"read_roots": (str(self.root(host)),), "write_roots": (str(self.root(host)),),
                    "state": str(place / "state" / host), **config}  # fmt: skip
            if devices:
                mine |= {"devices": tuple(devices), "allow_in_place": True}
            allowed = HostConfig(name=host, slots=slots, allow_overwrite=allow_overwrite, **mine)
            (place / f"{host}.toml").write_text(host_config_text(allowed))
        for name in [*daemons, *(f"{q}@{h}" for h in self.hosts for q in ("steps", "copy"))]:
            self.start(name)
        self.await_up(self.hosts)

    def make_server(self, directory: Path) -> ServerWithUsers:
        return ServerWithUsers(directory, self.hosts)

    def env_of(self, name: str) -> Mapping[str, str]:
        """What the environment of one process has besides that of all."""
        return {}

    def options_of(self, name: str) -> list[str]:
        """What the command of one process has besides what all have."""
        return ["--qmp", str(self.qmp)] if name == "coordinator" and self.qmp else []

    # --- processes ------------------------------------------------------------------------------------

    def start(self, name: str, *, wrapper: Iterable[str] = ()) -> None:
        command, _, _ = name.partition(".")  # behind the dot: which one of several
        queue, _, host = command.partition("@")
        words = ["worker", "--host", host, "--queue", queue, "--config", str(self.place / f"{host}.toml")]
        words = [*(words if host else [command]), *self.options_of(name)]
        user = "control" if not host else f"worker-{host}"
        env = os.environ | {"BLOCKJOBS_REDIS_URL": self.server.url_of(user), **self.env, **self.env_of(name)}
        log = self.place / "logs" / f"{name}.log"
        if self.forked and not wrapper and "LD_PRELOAD" not in env:  # which is for whoever is loaded
            self.processes[name] = forks().start(BLOCKJOBS, words, log=log, env=env)
        else:
            self.processes[name] = spawn_child([*wrapper, sys.executable, "-m", "blockjobs", *words], log=log, env=env)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal; for one that ends a process, wait until it is gone; one that stops it ends with the test."""
        process = self.processes[name]
        if number == signal.SIGSTOP:
            stop_process(process)
        else:
            process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(DEADLINE)

    def restart(self, name: str) -> None:
        if self.processes[name].poll() is None:
            self.kill(name)
        self.start(name)

    def mend(self) -> None:
        """Start again whatever a story stopped or killed."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                self.start(name)
        self.await_up(self.hosts)

    def await_up(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            if self.registry.hosts.known().get(Host(host), ("", 0))[0] != "up":
                self.until("HOST_UP", host)

    def end_runs(self) -> None:
        """Cancel all that goes on, and wait for its end."""
        for place in self.registry.views.all():
            with suppress(VerbRefused):  # it is over, or decided
                self.registry.verbs.cancel(place.job)
        for run in self.registry.views.runs():
            if not run.ended:
                self.until("RUN_ENDED", run.id)

    def close(self) -> None:
        """End every process, and be sure of it."""
        family = [child for p in self.processes.values() if psutil.pid_exists(p.pid) for child in children(p.pid)]
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait(DEADLINE)
        psutil.wait_procs(family, timeout=DEADLINE)
        refused = self.refused()
        self.client.close()
        self.server.stop()
        for place in (self.tmp, self.files):
            shutil.rmtree(place, ignore_errors=True)
        assert refused == set(), "a process asked for what its user may not do"

    def refused(self) -> set[tuple[str, str, str]]:
        """What the server refused to a user since it was started: user, why, and the key or command."""
        try:
            return {(entry["username"], entry["reason"], entry["object"]) for entry in self.client.acl_log()}
        except redis.RedisError:  # it was killed
            return set()

    # --- places and runs --------------------------------------------------------------------------------

    def root(self, host: str) -> Path:
        return self.place / host

    def image(self, host: str, name: str, mib: int) -> Path:
        """A file of random bytes; ``openssl``-free and fast enough for tests."""
        path = self.root(host) / name
        with path.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        return path

    def plan(self, jobs: list[dict[str, object]], *, grouped: bool = True, **options: object) -> RunPlan:
        """A run of jobs given as ``{"id", "source", "target", ...}``."""
        run = RunId(f"story{next(_numbers)}-20261122T000000Z")
        specs = []
        for job in jobs:
            own = dict(job)
            name = str(own.pop("id"))
            words = templates.template_words(run, name, datetime.now(UTC))
            source, target, base = job_volumes(
                own.pop("source"), own.pop("target"), words, in_place=bool(own.get("in_place"))
            )
            members: PlanOptions = {**options, **own}  # type: ignore[typeddict-item]
            txn = TxnId(run if grouped else f"{run}.{name}")
            specs.append(JobSpec(id=ids.job_id(f"{run}.{name}"), transaction=txn, run=run, source=source,
                                 target=target, target_base=base, **members))  # fmt: skip
        return RunPlan(run, "story", grouped, (tuple(specs),) if grouped else tuple((spec,) for spec in specs))

    def submit(self, plan: RunPlan) -> RunId:
        self.seq = self.registry.events.last()
        self.registry.submit.submit(plan)
        return plan.run

    def job(self, job_id: str) -> JobView:
        return self.registry.views.job(job_id)

    def jobs(self, run: RunId) -> list[JobView]:
        return list(self.registry.views.jobs(self.registry.views.places(run)))

    def writer(self, host: str, job_id: str) -> int:
        """The pid of the process that has the job's claim."""
        live = {claim.job: claim.who() for claim in HostRegistry(self.client, Host(host)).attempts.live()}
        return live[ids.JobId(job_id)].pid

    # --- waiting ----------------------------------------------------------------------------------------

    def until(self, name: str, id_: str = "", when: Callable[[Event], bool] = lambda _: True) -> Event:
        """Read on in the stream to the first such event; ``name`` and ``id_``: empty for any."""
        for event in self.stream():
            if (not name or event.name == name) and (not id_ or event.id == id_) and when(event):
                return event
        raise AssertionError(f"no {name or 'such event'} {id_} within {DEADLINE:.0f} s\n{self.tails()}")

    def until_all(self, names: Iterable[str], id_: str) -> None:
        """Read on until each has come, in whatever order."""
        missing = set(names)
        while missing:
            missing.remove(self.until("", id_, lambda event: event.name in missing).name)

    def until_status(self, job_id: str, status: str) -> Event:
        return self.until("JOB_STATUS_CHANGE", job_id, lambda event: event.fields["status"] == status)

    def until_offset(self, job_id: str, least: int) -> None:
        """Wait until a job has come so far."""
        self.until_true(lambda: self.job(job_id).offset >= least)

    def until_durable(self, host: str, job_id: str) -> None:
        """Wait until something of a job is durable, and the registry knows it."""
        self.until_true(lambda: self.client.hexists(keys.job(Host(host), ids.JobId(job_id)), "durable"))

    def until_closed(self) -> None:
        """Wait for what the finalizer does to a transaction after the end of its run was told."""
        self.until_true(lambda: self.client.exists(keys.unfinished(), keys.due()) == 0)

    def until_quiet(self) -> None:
        """Wait for that, and for what Celery does of its own: every worker listens."""
        self.until_closed()
        self.until_true(lambda: self._listening() == 2 * len(self.hosts))

    def _listening(self) -> int:
        """How many workers wait for a message."""
        return sum(each["cmd"] == "brpop" for each in self.client.client_list())

    def until_true(self, what: Callable[[], object]) -> None:
        """Wait for what has no event."""
        deadline = time.monotonic() + DEADLINE
        while not what():
            assert time.monotonic() < deadline, self.tails()
            self.rest(0.05)

    def rest(self, seconds: float) -> None:
        """Let so much time pass, whatever the server is like."""
        self._never.wait(seconds)

    def stream(self) -> Iterable[Event]:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            for event in self.registry.events.after(self.seq, block_ms=500):
                self.seq = event.seq
                yield event

    def tails(self) -> str:
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            for log in sorted((self.place / "logs").glob("*.log"))
        )


def alive(process: psutil.Process) -> bool:
    """Where nobody collects orphans, what has ended stays as a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between two looks
        return False


def children(pid: int) -> list[psutil.Process]:
    """All processes below one."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def files(root: Path) -> set[str]:
    """Every path beneath a root but the journals' own folder; a directory may go while it is looked into."""
    found = set()
    for place, directories, names in os.walk(root):
        directories[:] = [name for name in directories if name != ".blockjobs"]
        found |= {os.path.relpath(os.path.join(place, name), root) for name in (*directories, *names)}
    return found
