"""Commands of the command line, each in a process of its own: forks of one process that has imported them all.

An import takes a processor longer than most commands do.  What a command prints, how it ends and what it took are those
of a process that nobody else used; that ``python -m blockjobs`` begins at all is for the tests that start it so.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import IO, Any

ALL = ("blockjobs.cli.main", *(f"blockjobs.cli.{name}" for name in (
    "check", "doctor", "drain", "hosts", "mirror", "move", "pause_all", "plan", "restore", "retry", "run", "show",
    "status", "verbs", "volumes", "wait",
)), "blockworker.commands.verify")  # fmt: skip
CODE = """
import json, os, resource, sys, tempfile, traceback
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
from blockjobs.cli.main import main
nothing = os.open(os.devnull, os.O_RDONLY)
def close():
    os.close(1)
    sys.stdout = None  # as the interpreter leaves it
def leave():
    ours, theirs = os.pipe()
    os.close(ours)
    os.dup2(theirs, 1)
STDOUTS = {
    "closed": close, "without a reader": leave, "full": lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1),
    "in Latin-1": lambda: sys.stdout.reconfigure(encoding="latin-1", errors="strict"),
}
for line in sys.stdin:
    asked = json.loads(line)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as used:
        child = os.fork()
        if not child:
            for place, fd in enumerate((nothing, out.fileno(), err.fileno())):
                os.dup2(fd, place)
            code = 70
            try:
                os.chdir(asked["cwd"])
                os.environ.clear()
                os.environ.update(asked["env"])
                sys.argv = ["blockjobs", *asked["words"]]
                for name, most in asked["limits"].items():
                    resource.setrlimit(getattr(resource, name), (most, most))
                if asked["stdout"]:
                    STDOUTS[asked["stdout"]]()
                main()
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                try:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    # The most memory that it had: what wait4 says of it is that of its parent, where it had more.
                    used.write(open("/proc/self/status", "rb").read().partition(b"VmHWM:")[2].split()[0])
                    used.flush()
                finally:
                    os._exit(code)
        _, status, usage = os.wait4(child, 0)
        for file in (out, err, used):
            file.seek(0)
        print(json.dumps({
            "returncode": os.waitstatus_to_exitcode(status),
            "stdout": out.read().decode(errors="replace"), "stderr": err.read().decode(),
            "memory": int(used.read() or 0) << 10, "seconds": usage.ru_utime + usage.ru_stime,
        }), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str
    memory: int  # bytes, at most at once
    seconds: float  # of processor time, imports not included


class Commands:
    """The process that has imported some modules, and is forked for each command."""

    def __init__(self, modules: Iterable[str]) -> None:
        self._argv = [sys.executable, "-P", "-c", CODE, *modules]
        self._process: subprocess.Popen[str] | None = None
        self._one_at_a_time = Lock()
        atexit.register(self.close)

    def run(
        self, *words: object, env: Mapping[str, str] | None = None, cwd: str | os.PathLike[str] = ".",
        limits: Mapping[str, int] | None = None, stdout: str = "",
    ) -> Ended:  # fmt: skip
        """``blockjobs WORDS``; ``env``: beside this process' own; ``limits``: of ``resource``, by name.

        ``stdout``: one of STDOUTS, which is in a bad way.
        """
        asked = {"words": [str(word) for word in words], "env": {**os.environ, **(env or {})},
                 "cwd": os.path.abspath(cwd), "limits": {**(limits or {})}, "stdout": stdout}  # fmt: skip
        with self._one_at_a_time:
            stdin, answers = self._pipes()
            try:
                print(json.dumps(asked), file=stdin, flush=True)
                return Ended(**json.loads(answers.readline()))
            except BaseException:  # a test that was broken off: what its command answers is nobody's
                self.close()
                raise

    def _pipes(self) -> tuple[IO[Any], IO[Any]]:
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._argv, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def close(self) -> None:
        """End the process, and the command that it waits for."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with self._process:
                self._process = None


@cache
def _all_commands() -> Commands:
    return Commands(ALL)


def run_command(
    *words: object, url: str = "", cwd: str | os.PathLike[str] = ".", stdout: str = ""
) -> Ended:  # fmt: skip
    """``blockjobs WORDS``, in a process of its own; ``url``: of Redis."""
    return _all_commands().run(*words, env={"BLOCKJOBS_REDIS_URL": url} if url else {}, cwd=cwd, stdout=stdout)
