"""The quiesce command: called with ``freeze`` before a cut, or a mirror's last pass, and with ``thaw`` behind it.

It is named by the job and allowed, by that name, in ``host.toml``; behind the word it gets the paths of the sources.
Both calls are made by a process of its own (freezer.py), so that the thaw comes whatever becomes of us.
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
from blockworker.host.host_commands import LIMIT, allowed, call, ended

log = logging.getLogger(__name__)

FREEZER: Final = Path(__file__).with_name("freezer.py")
GRACE: Final = 200.0  # seconds within which a freezer that was told to thaw has to have done so: three calls, and more


class Quiesce:
    """Without a command nothing is ever frozen.  ``limit``: seconds after which it is thawed at the latest, 0: none."""

    def __init__(
        self, name: str = "", argv: tuple[str, ...] = (), paths: Sequence[str] = (), *, limit: float = 0.0
    ) -> None:
        self._name, self._argv, self._paths, self._limit = name, argv, [*paths], limit
        self._freezer: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, config: HostConfig, spec: JobSpec) -> Quiesce:
        """Raises JobFailed: the host does not allow it."""
        name = str(spec.options.get("quiesce") or "")
        if not name:
            return cls()
        return cls(name, allowed(config, name), [volumespec.path(spec.source.volume) or ""])

    @property
    def given(self) -> bool:
        return bool(self._argv)

    @property
    def frozen(self) -> bool:
        return self._freezer is not None

    def freeze(self) -> bool:
        """Make the sources stand still; whether they do.

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
            raise JobFailed(errno.EIO, ended(self._name, "freeze", int(code), said.encode()))
        raise JobFailed(errno.EIO, self._thaw_ourselves(word, rest) or f"command '{self._name}' was ended on freeze")

    def thaw(self) -> float | None:
        """Let the sources go on; for how long they stood still until now, None: not that long.

        A failure is logged, and fails nothing: what was copied is what it was.
        """
        if self._freezer is None or self._freezer.stdin is None:
            return None
        with suppress(OSError):  # it has thawed them already, or somebody ended it
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
        """An attempt that died together with its freezer may have left the source frozen."""
        if self._argv:
            self._thaw_ourselves("", "")

    def _heard(self, patience: float) -> tuple[str, str]:
        """The freezer's next word and what comes behind it; two empty ones if it is gone, or silent."""
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
        """The freezer did not; why we could not either."""
        try:
            call(self._name, self._argv, "thaw", *self._paths)
        except JobFailed as failed:
            said = f"{failed.text}{f' ({rest})' if word == 'stuck' else ''}: the source may stand still!"
            log.error("%s", said)
            return said
        return ""
