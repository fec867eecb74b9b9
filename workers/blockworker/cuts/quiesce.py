"""The quiesce command: called with ``freeze`` before a cut or a mirror's last pass, and with ``thaw`` afterwards.

The job names the command, and ``host.toml`` has to allow the name.  After the word, the command gets the paths of the
sources.  A separate process (freezer.py) makes both calls, so that the thaw comes even if this process dies.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockworker.host.config import HostConfig
from blockworker.host.host_commands import LIMIT, allowed_command, call_host_command, command_failure

log = logging.getLogger(__name__)

FREEZER: Final = Path(__file__).with_name("freezer.py")
GRACE: Final = 200.0  # seconds for a freezer to thaw once asked: three calls, and a margin


class Quiesce:
    """The quiesce command of a job; without a command, freeze() does nothing.

    ``limit``: seconds after which the sources are thawed without a request; 0: no limit.
    """

    def __init__(
        self, name: str = "", argv: tuple[str, ...] = (), paths: Sequence[str] = (), *, limit: float = 0.0
    ) -> None:
        self._name, self._argv, self._paths, self._limit = name, argv, [*paths], limit
        self._freezer: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, config: HostConfig, spec: JobSpec) -> Quiesce:
        """Build the quiesce command that the job names.  Raises JobFailed: the host does not allow the command."""
        name = str(spec.options.get("quiesce") or "")
        if not name:
            return cls()
        return cls(name, allowed_command(config, name), [volumespec.volume_path(spec.source.volume) or ""])

    @property
    def given(self) -> bool:
        return bool(self._argv)

    @property
    def frozen(self) -> bool:
        return self._freezer is not None

    def freeze(self) -> bool:
        """Freeze the sources; False if the job names no command.

        Raises:
            JobFailed: the command failed; the sources are thawed again.
        """
        if not self._argv:
            return False
        told = {"argv": self._argv, "paths": self._paths, "limit": self._limit, "patience": LIMIT}
        try:
            self._freezer = subprocess.Popen(
                [sys.executable, "-I", "-S", str(FREEZER), json.dumps(told)], start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            raise JobFailed(error.errno or errno.EIO, f"command '{self._name}': {error.strerror}") from None
        word, rest = self._heard(LIMIT + GRACE)
        if word == "frozen":
            return True
        self._end()
        if word == "failed":
            code, _, said = rest.partition(" ")
            if code == "-":
                raise JobFailed(errno.ETIMEDOUT, f"command '{self._name}' took too long on freeze")
            raise JobFailed(errno.EIO, command_failure(self._name, "freeze", int(code), said.encode()))
        raise JobFailed(errno.EIO, self._thaw_ourselves(word, rest) or f"command '{self._name}' was ended on freeze")

    def thaw(self) -> float | None:
        """Thaw the sources; return the seconds for which the sources were frozen, or None if the freeze ended early.

        A failure is logged and fails no job: the copied bytes do not change.
        """
        if self._freezer is None or self._freezer.stdin is None:
            return None
        with suppress(OSError):  # the freezer has thawed the sources already, or was killed
            self._freezer.stdin.write(b"!")
        word, rest = self._heard(GRACE)
        self._end()
        if word == "thawed":
            return float(rest)
        if word == "late":
            log.warning("command '%s': thawed after %s s, before it was asked to", self._name, rest)
        else:
            self._thaw_ourselves(word, rest)
        return None

    def recover(self) -> None:
        """Thaw the sources: an attempt that died together with its freezer may have left a source frozen."""
        if self._argv:
            self._thaw_ourselves("", "")

    def _heard(self, patience: float) -> tuple[str, str]:
        """Read the freezer's next line; return its first word and the rest, two empty strings on end or timeout."""
        if self._freezer is None or self._freezer.stdout is None:
            return "", ""
        line, pipe = b"", self._freezer.stdout.fileno()
        while not line.endswith(b"\n"):
            piece = os.read(pipe, 4096) if select.select([pipe], [], [], patience)[0] else b""
            if not piece:
                return "", ""
            line += piece
        word, _, rest = line.decode(errors="replace").strip().partition(" ")
        return word, rest

    def _end(self) -> None:
        freezer, self._freezer = self._freezer, None
        if freezer is None:
            return
        for pipe in (freezer.stdin, freezer.stdout):
            if pipe is not None:
                pipe.close()
        try:
            freezer.wait(1.0)
        except subprocess.TimeoutExpired:
            freezer.kill()
            freezer.wait()

    def _thaw_ourselves(self, word: str, rest: str) -> str:
        """Thaw in place of a freezer that did not; return "" or the reason why this thaw failed too."""
        try:
            call_host_command(self._name, self._argv, "thaw", *self._paths)
        except JobFailed as failed:
            said = f"{failed.text}{f' ({rest})' if word == 'stuck' else ''}: the source may stand still!"
            log.error("%s", said)
            return said
        return ""
