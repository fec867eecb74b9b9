"""A site to be hurt: hosts with disks and clocks of their own, two of each daemon, and who starts again what ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clocks import Wall
from fleet import Fleet, ServerWithUsers
from mounts import MAKE, PATH

DAEMONS = ("coordinator", "coordinator.2", "finalizer", "finalizer.2")
DISK = 1 << 30  # bytes of each host's disk, sparse
RESTART_AFTER = 0.5  # seconds after which a process that ended is started again


class ServerWithAClock(ServerWithUsers):
    """A server whose wall clock can be put, and whose data can be brought back as it was."""

    def __init__(self, directory: Path, hosts: Iterable[str], wall: Wall) -> None:
        super().__init__(directory, hosts)
        self._wall = wall

    @property
    def command(self) -> list[str]:
        return ["env", *(f"{name}={value}" for name, value in self._wall.environment.items()), *super().command]

    def save(self, to: Path) -> None:
        """Copy its data as it is now; what is being written may be torn off at its end, as it may be at a crash."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.directory / "appendonlydir", to)

    def bring_back(self, saved: Path) -> None:
        """Put an older copy in the place of its data; the server must not run."""
        shutil.rmtree(self.directory / "appendonlydir")
        shutil.copytree(saved, self.directory / "appendonlydir")


class Disk:
    """A file system of its own, on a device that stays while the file system is not mounted."""

    def __init__(self, place: Path) -> None:
        self.top, self._file = place / "mnt", place / "disk"
        self.top.mkdir(parents=True)
        with self._file.open("wb") as file:
            file.truncate(DISK)
        tool, *words = MAKE["xfs"]
        run(shutil.which(tool, path=PATH) or tool, *words, str(self._file))
        self.device = run("losetup", "--find", "--show", str(self._file)).strip()
        self.mount()

    def mount(self) -> None:
        if not os.path.ismount(self.top):
            run("mount", self.device, str(self.top))

    def unmount(self) -> None:
        """Take it from its place, also from under those who have files of it open."""
        if os.path.ismount(self.top):
            run("umount", "--lazy", str(self.top))

    def freeze(self) -> None:
        run("fsfreeze", "--freeze", str(self.top))

    def thaw(self) -> None:
        run("fsfreeze", "--unfreeze", str(self.top))

    def close(self) -> None:
        subprocess.run(["fsfreeze", "--unfreeze", str(self.top)], capture_output=True, check=False)
        self.unmount()
        subprocess.run(["losetup", "--detach", self.device], capture_output=True, check=False)
        self._file.unlink()


class Site(Fleet):
    """A fleet of machines, each with a clock; hosts with a disk each.

    Machines are the hosts, ``redis``, and one for each coordinator with its finalizer: ``control`` and ``control.2``.
    """

    server: ServerWithAClock

    def __init__(self, place: Path, hosts: Iterable[str]) -> None:
        names = list(hosts)
        machines = [*names, "redis", "control", "control.2"]
        self.walls = {machine: Wall(made(place / "clocks" / machine)) for machine in machines}
        self._stack = ExitStack()
        self.disks = {host: self._stack.enter_context(held(Disk(place / "disks" / host))) for host in names}
        self.down: dict[str, float] = {}  # processes that are not started again before this monotonic time
        self.ended: list[tuple[str, int]] = []  # processes that ended and that nobody had killed, and their exit codes
        (place / "state").mkdir()
        try:
            super().__init__(place, names, daemons=DAEMONS, must_be_mounted=True, read_roots=(str(place),))
        except BaseException:
            self._stack.close()
            raise

    def make_server(self, directory: Path) -> ServerWithAClock:
        return ServerWithAClock(directory, self.hosts, self.walls["redis"])

    def root(self, host: str) -> Path:
        return self.disks[host].top

    def env_of(self, name: str) -> Mapping[str, str]:
        return self.walls[machine_of(name)].environment

    def options_of(self, name: str) -> list[str]:
        return ["--state", str(self.place / "state" / name)] if name.startswith("finalizer") else []

    def kill(self, name: str, number: int = 9) -> None:
        self.down[name] = time.monotonic() + RESTART_AFTER
        super().kill(name, number)

    def supervise(self) -> None:
        """Start again what ended, as systemd does."""
        now = time.monotonic()
        for name, process in list(self.processes.items()):
            if process.poll() is None:
                continue
            if name not in self.down:
                self.ended.append((name, process.returncode))
                self.down[name] = now + RESTART_AFTER
            elif now >= self.down[name]:
                del self.down[name]
                self.start(name)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._stack.close()


def machine_of(process: str) -> str:
    """The machine of a process: that of ``copy@a.2`` is ``a``, that of ``finalizer.2`` is ``control.2``."""
    command, dot, which = process.partition(".")
    _, _, host = command.partition("@")
    return host or f"control{dot}{which}"


def made(place: Path) -> Path:
    place.mkdir(parents=True)
    return place


@contextmanager
def held(disk: Disk) -> Iterator[Disk]:
    try:
        yield disk
    finally:
        disk.close()


def run(*words: str) -> str:
    """Run a command of this machine; what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH})
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done.stdout
