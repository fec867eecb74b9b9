"""The highest decision taken by this machine's finalizer, on disk: proof that a registry is older."""

from __future__ import annotations

import json
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from blockjobs.model.memory import DecisionsKnown

log = logging.getLogger(__name__)

NAME: Final = "decisions.json"


class Remembered:
    """``place``: an existing writable directory, or None to remember within this process only.

    Decisions are written by a thread: many decisions at once cost a single write.  A decision lost with the power is
    known to the hosts, which have carried it out.
    """

    def __init__(self, place: Path | None) -> None:
        self._file = place / NAME if place is not None else None
        self.known = self._written = self._load()
        self._new = threading.Condition()
        if self._file is not None:
            threading.Thread(target=self._write_on, args=(self._file,), name="decisions", daemon=True).start()

    def note(self, registry: str, number: int) -> None:
        """Note a decision."""
        with self._new:
            if number > self.known.number:
                self.known = DecisionsKnown(registry, number)
                self._new.notify()

    def _load(self) -> DecisionsKnown:
        if self._file is None or not self._file.exists():
            return DecisionsKnown("", 0)
        try:
            record = json.loads(self._file.read_text(encoding="utf-8"))
            return DecisionsKnown(str(record["registry"]), int(record["number"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("%s cannot be read: the earlier decisions of this finalizer are not known: %s", self._file, error)
            return DecisionsKnown("", 0)

    def _write_on(self, file: Path) -> None:
        while True:
            with self._new:
                while self.known == self._written:
                    self._new.wait()
                known = self.known
            try:
                _write_decisions(file, known)
            except OSError as error:
                log.error("%s cannot be written: %s", file, error.strerror)
            self._written = known


def _write_decisions(file: Path, known: DecisionsKnown) -> None:
    aside = file.with_suffix(".new")
    with aside.open("w", encoding="utf-8") as new:
        json.dump({"version": 1, "registry": known.registry, "number": known.number}, new)
        new.flush()
        os.fsync(new.fileno())
    aside.replace(file)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def find_place(state: str) -> Path | None:
    """The directory for the finalizer's records, made if missing; None if the directory cannot be made or written."""
    place = Path(state)
    with suppress(OSError):
        place.mkdir(mode=0o700, exist_ok=True)
    if os.access(place, os.W_OK | os.X_OK):
        return place
    log.warning("%s cannot be made or written: decisions are recorded on hosts alone", place)
    return None
