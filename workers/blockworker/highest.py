"""The highest decision this host ever carried out, and of which registry: what a rolled-back Redis is known by.

Kept durably beside the journals, and told with every heartbeat: the finalizer decides nothing while a member
host knows of a later decision than the registry does, and a host carries out none of another registry.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from typing import Final

from blockjobs.model.errors import JobFailed
from blockworker.host import HostConfig
from blockworker.targets.folder import FOLDER

NAME: Final = "highest.json"


class Highest:
    """One for each host, shared by its steps; any thread may call it."""

    def __init__(self, config: HostConfig) -> None:
        self._folder = f"{config.write_roots[0].rstrip('/')}/{FOLDER}" if config.write_roots else ""
        self._one = threading.Lock()
        self.incarnation, self.number = self._load()

    def raise_to(self, incarnation: str, number: int) -> None:
        """Note a decision before its first effect, durably.

        Raises:
            JobFailed: it is of another registry than those carried out here before.
        """
        with self._one:
            if self.incarnation and incarnation != self.incarnation:
                raise JobFailed(
                    errno.ESTALE,
                    f"the registry is another one than before ({incarnation or 'none'}, not {self.incarnation}): "
                    f"nothing is decided here until {self._folder}/{NAME} is removed",
                )
            if number > self.number or not self.incarnation:
                self.incarnation, self.number = incarnation, max(number, self.number)
                self._save()

    def _load(self) -> tuple[str, int]:
        if not self._folder:
            return "", 0
        try:
            with open(f"{self._folder}/{NAME}", encoding="ascii") as file:
                record = json.load(file)
            return str(record["incarnation"]), int(record["number"])
        except FileNotFoundError:
            return "", 0

    def _save(self) -> None:
        if not self._folder:
            return
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            fd = os.open(f".{NAME}.new", flags, 0o600, dir_fd=folder)
            with os.fdopen(fd, "w", encoding="ascii") as file:
                json.dump({"incarnation": self.incarnation, "number": self.number}, file)
                file.flush()
                os.fsync(fd)
            os.rename(f".{NAME}.new", NAME, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)
