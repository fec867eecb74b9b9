"""Whole machines: systemd boots in a container over an overlay of this machine's root file system.

The network is that of this machine.  What a machine writes lies in memory, and is gone after the test.  A machine can
be switched off at any instant, and booted again with what it had written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import psutil

DEADLINE: Final = 60.0  # seconds for a boot; four are usual
# What of this machine's own services would start in a machine, too.
MASKED: Final = ("postgresql.service", "apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer", "cron.service",
                 "systemd-networkd.service", "systemd-resolved.service", "console-getty.service")  # fmt: skip
PATH: Final = "PATH=/opt/blockjobs/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELL: Final = ("bash", "-euo", "pipefail", "-c")
LANDLOCK: Final = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"


def why_not() -> str:
    """Why no machine can be booted here; "" where one can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("systemd-nspawn", "nsenter", "unshare") if shutil.which(name) is None]
    return f"needs {', '.join(missing)}: make tools, as root" if missing else ""


class Machine:
    """One machine; a ``with`` block: it is off, and its disk is gone, after it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._place = Path(tempfile.mkdtemp(prefix=f"machine-{name}-"))
        self.root = self._place / "root"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        _run("mount", "-t", "tmpfs", "machine", str(self._place))
        for part in ("upper", "work", "root"):
            (self._place / part).mkdir()
        layers = f"lowerdir=/,upperdir={self._place}/upper,workdir={self._place}/work"
        _run("mount", "-t", "overlay", "machine", "-o", layers, str(self.root))
        (self.root / "etc/machine-id").unlink(missing_ok=True)
        (self.root / "etc/machine-id").write_text("uninitialized\n")
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        for unit in MASKED:
            path = self.root / "etc/systemd/system" / unit
            path.unlink(missing_ok=True)
            path.symlink_to("/dev/null")
        return self

    def __exit__(self, *_: object) -> None:
        self.switch_off()
        for path in (self.root, self._place):
            subprocess.run(["umount", "--lazy", str(path)], check=False)
        shutil.rmtree(self._place, ignore_errors=True)
        for group in _groups(self.name):
            for each in [*sorted(group.rglob("*"), reverse=True), group]:
                if each.is_dir():
                    with suppress(OSError):
                        each.rmdir()

    def boot(self, *more: str) -> Self:
        """Switch it on, and return when systemd has started what it starts at a boot."""
        argv = [
            "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", f"--directory={self.root}",
            f"--machine={self.name}", f"--hostname={self.name}", "--console=pipe",
            f"--system-call-filter={LANDLOCK}", *more,
        ]  # fmt: skip
        with (self._place / "console").open("ab") as console:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
                preexec_fn=self._join_groups,  # noqa: PLW1509 - it writes numbers into files
            )  # fmt: skip
        give_up = time.monotonic() + DEADLINE
        booted = ("running", "degraded")
        while self.say("systemctl is-system-running --wait", check=False)[1].strip() not in booted:
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(f"{self.name} does not boot: {(self._place / 'console').read_text()[-2000:]}")
            time.sleep(0.1)
        return self

    def switch_off(self) -> None:
        """As a power cut does."""
        if self._process is None:
            return
        family = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        for process in [psutil.Process(self._process.pid), *family] if family else []:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.wait(DEADLINE)
        psutil.wait_procs(family, timeout=DEADLINE)
        self._process = None

    def say(self, script: str, *, check: bool = True, timeout: float = 60) -> tuple[int, str]:
        """Run a script of bash there: (exit code, what it printed)."""
        leader = self._leader()
        if leader is None:
            return 255, "it is off"
        argv = ["nsenter", f"--target={leader}", "--all", "env", "-i", PATH, "HOME=/root", *SHELL, script]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {script}\n{done.stdout}\n{self.journal()}")
        return done.returncode, done.stdout

    def journal(self) -> str:
        """The last lines of its journal."""
        return self.say("journalctl -n 40 --no-pager -o cat || true", check=False)[1]

    def await_that(self, script: str, seconds: float = DEADLINE) -> str:
        """Run a script until it succeeds."""
        give_up = time.monotonic() + seconds
        while True:
            code, out = self.say(script, check=False)
            if code == 0:
                return out
            if time.monotonic() > give_up:
                raise AssertionError(
                    f"{self.name}: {script}\n{out}\n{self.say('journalctl -n 60 --no-pager', check=False)[1]}"
                )
            time.sleep(0.1)

    def install(self, script: str, timeout: float = 300) -> None:
        """Run a script on its disk, while it is off."""
        network = [f"{name}={value}" for name, value in os.environ.items() if name.lower().startswith(("pip_", "http"))]
        argv = [
            "unshare", "--mount", "--fork", "chroot", str(self.root), "env", "-i", PATH, *network,
            *SHELL, f"mount -t proc proc /proc; mount -t devtmpfs dev /dev; {script}",
        ]  # fmt: skip
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{self.name}: {script}\n{done.stdout}"

    def _leader(self) -> int | None:
        if self._process is None or self._process.poll() is not None:
            return None
        for child in psutil.Process(self._process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if child.name() == "systemd":
                    return child.pid
        return None

    def _join_groups(self) -> None:
        for group in _groups(self.name):
            group.mkdir(exist_ok=True)
            (group / "cgroup.procs").write_text("0")


def _groups(name: str) -> list[Path]:
    """A control group of its own in each hierarchy that systemd uses, which machines side by side would share."""
    base = Path("/sys/fs/cgroup")
    found = [base / each for each in ("systemd", "unified") if (base / each / "cgroup.procs").exists()]
    return [each / f"blockjobs-{name}" for each in found or [base]]


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
