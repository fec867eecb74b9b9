"""Calls of the host's own commands: only commands named in ``host.toml`` are allowed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from blockjobs.model.errors import JobFailed
from blockjobs.process.spawn import describe_end
from blockworker.host.config import HostConfig

LIMIT: Final = 60.0  # seconds that a call may take


def allowed_command(config: HostConfig, name: str) -> tuple[str, ...]:
    """The words of a command. Raises JobFailed: the host does not allow the command."""
    if name not in config.commands:
        raise JobFailed(errno.EPERM, f"command '{name}' is not allowed by host.toml of host {config.name}")
    return config.commands[name]


def call_host_command(name: str, argv: Sequence[str], *words: str, limit: float = LIMIT, fence: int = -1) -> str:
    """Run a command and return its output. ``words``: the first word names the operation, also in errors.

    ``fence``: the descriptor of a lock that stays held while the command runs, even if this process dies; the command
    inherits no other descriptor.

    Raises:
        JobFailed: the command could not be started, took too long (and was killed), or reports a failure.
    """
    try:
        process = subprocess.Popen(
            [*argv, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, pass_fds=[fence] if fence >= 0 else [],
        )  # fmt: skip
    except OSError as error:
        raise JobFailed(error.errno or errno.EIO, f"command '{name}': {error.strerror}") from None
    try:
        stdout, stderr = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise JobFailed(errno.ETIMEDOUT, f"command '{name}' took more than {limit:.0f} s on {words[0]}") from None
    if process.returncode:
        raise JobFailed(errno.EIO, command_failure(name, words[0], process.returncode, stderr))
    return stdout.decode(errors="replace")


def command_failure(name: str, word: str, code: int, stderr: bytes) -> str:
    """The failure of a command, with the last line of its error output."""
    said = stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"command '{name}' on {word}: {describe_end(code)}{': ' + said[0] if said else ''}"
