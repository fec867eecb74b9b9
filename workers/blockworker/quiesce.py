"""The quiesce command of a mirror's last pass: called with ``freeze`` before it and with ``thaw`` behind it.

It is named by the job and allowed, by that name, in ``host.toml``; it gets the source's path as second word.
"""

from __future__ import annotations

import errno
import logging
import subprocess
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockworker.host import HostConfig

log = logging.getLogger(__name__)

LIMIT: Final = 60.0  # seconds that a call may take


class Quiesce:
    """Without a command nothing is ever frozen."""

    def __init__(self, name: str = "", argv: tuple[str, ...] = (), path: str = "") -> None:
        self._name, self._argv, self._path = name, argv, path
        self.frozen = False

    @classmethod
    def of(cls, config: HostConfig, spec: JobSpec) -> Quiesce:
        """Raises JobFailed: the host does not allow it."""
        name = str(spec.options.get("quiesce") or "")
        if not name:
            return cls()
        if name not in config.commands:
            raise JobFailed(errno.EPERM, f"command '{name}' is not allowed by host.toml of host {config.name}")
        return cls(name, config.commands[name], volumespec.path(spec.source.volume) or "")

    @property
    def given(self) -> bool:
        return bool(self._argv)

    def freeze(self) -> bool:
        """Make the source stand still; whether it does.

        Raises:
            JobFailed: the command failed; the source is thawed again.
        """
        if not self._argv:
            return False
        self.frozen = True  # also when it fails half-way: then it is thawed
        try:
            self._call("freeze")
        except JobFailed:
            self.thaw()
            raise
        return True

    def thaw(self) -> None:
        """Let the source go on; a failure is logged, and fails nothing: the copy is what it was."""
        if not self._argv or not self.frozen:
            return
        self.frozen = False
        try:
            self._call("thaw")
        except JobFailed as failed:
            log.error("%s: the source may stand still!", failed.text)

    def recover(self) -> None:
        """An attempt that died may have left the source frozen."""
        self.frozen = bool(self._argv)
        self.thaw()

    def _call(self, word: str) -> None:
        try:
            subprocess.run(
                [*self._argv, word, self._path], check=True, timeout=LIMIT, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        except subprocess.CalledProcessError as failed:
            said = failed.stderr.decode(errors="replace").strip().splitlines()[-1:]
            text = f"command '{self._name}' ended with {failed.returncode} on {word}{': ' + said[0] if said else ''}"
            raise JobFailed(errno.EIO, text) from None
        except subprocess.TimeoutExpired:
            raise JobFailed(errno.ETIMEDOUT, f"command '{self._name}' took more than {LIMIT:.0f} s on {word}") from None
        except OSError as error:
            raise JobFailed(error.errno or errno.EIO, f"command '{self._name}': {error.strerror}") from None
