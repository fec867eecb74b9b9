"""The highest decision that this host ever carried out, and its registry: the record exposes a rolled-back Redis.

The record lies durably in the host's state directory and is sent with every heartbeat.  The finalizer decides nothing
while a member host knows of a later decision than the registry, and a host refuses the decisions of another registry.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from typing import Final

from blockjobs.model.errors import JobFailed
from blockworker.host import state
from blockworker.host.config import HostConfig
from blockworker.host.state import StatePlace

log = logging.getLogger(__name__)

NAME: Final = "highest.json"


class Highest:
    """The host's highest decision, shared by the host's steps; thread-safe."""

    def __init__(self, config: HostConfig) -> None:
        places = state.places_of(config)
        self._place: StatePlace | None = next(iter(places), None)
        self._earlier = places[1:]
        self._one = threading.Lock()
        self.damage: JobFailed | None = None  # the reason why the record cannot be read
        self.incarnation, self.number = "", 0
        try:
            self._read_again()
        except JobFailed as failed:
            self.damage = failed

    def raise_to(self, incarnation: str, number: int) -> None:
        """Record a decision durably, before its first effect.

        Raises:
            JobFailed: the decision is from another registry than the recorded decisions, or the record is unreadable.
        """
        with self._one:
            if self.damage is not None:  # the record may have been repaired
                self._read_again()
            if self.incarnation and incarnation != self.incarnation:
                raise JobFailed(
                    errno.ESTALE,
                    f"the registry is another one than before ({incarnation or 'none'}, not {self.incarnation}): "
                    f"nothing is decided here until {self._path} is removed",
                )
            if number > self.number or not self.incarnation:
                number = max(number, self.number)
                self._write(incarnation, number)  # first: if the disk refuses, nothing is carried out
                self.incarnation, self.number = incarnation, number

    def replace(self, gone: str, incarnation: str) -> None:
        """Forget a registry that is gone for good: from now on this host carries out the decisions of another registry.

        Raises:
            JobFailed: the recorded decisions are from a third registry, or the record is unreadable.
        """
        with self._one:
            if self._place is not None:
                self._read_again()
            if self.incarnation in ("", incarnation):
                return
            if self.incarnation != gone:
                raise JobFailed(
                    errno.ESTALE, f"the decisions that were carried out here are of registry {self.incarnation}"
                )
            self._write(incarnation, 0)
            self.incarnation, self.number = incarnation, 0

    def _read_again(self) -> None:
        """Read the record from the disk again.  Raises JobFailed: the record is unreadable or invalid."""
        self.incarnation, self.number = self._load()
        self.damage = None

    def keep_room(self) -> None:
        """Write the record anew, to reserve room for the next version: a full disk can still record a decision."""
        if self.damage is not None:  # the damaged record is the only evidence: do not overwrite
            log.error("%s", self.damage)
            return
        with self._one:
            try:
                self._write(self.incarnation, self.number)
            except OSError as error:
                log.warning("%s: %s: where the disk is full no decision can be noted", self._path, error.strerror)

    @property
    def _path(self) -> str:
        return f"{self._place.path}/{NAME}" if self._place is not None else ""

    def _load(self) -> tuple[str, int]:
        """Read the record; if there is none yet, carry over the record of an earlier version or configuration.

        Raises:
            JobFailed: a record is unreadable or invalid.
        """
        if self._place is None:
            return "", 0
        if found := _read_highest_decision(self._place):
            return found
        earlier = {place: found for place in self._earlier if (found := _read_highest_decision(place))}
        if not earlier:
            return "", 0
        found = max(earlier.values(), key=lambda each: each[1])
        try:
            self._write(*found)
            for place in earlier:
                state.remove_record(place, NAME)
        except OSError as error:  # the value is known, and is carried over with the next decision
            log.warning("%s of earlier versions is not carried over to %s: %s", NAME, self._path, error)
        return found

    def _write(self, incarnation: str, number: int) -> None:
        if self._place is not None:
            content = json.dumps({"incarnation": incarnation, "number": number}).encode("ascii")
            state.write_record(self._place, NAME, content)


def _read_highest_decision(place: StatePlace) -> tuple[str, int] | None:
    path, reason = f"{place.path}/{NAME}", "nothing is decided here until it is mended, or removed"
    try:
        text = state.read_record(place, NAME)
        if text is None:
            return None
        record = json.loads(text)
        incarnation, number = record["incarnation"], record["number"]
        if not isinstance(incarnation, str) or type(number) is not int:
            raise ValueError("the id of a registry and the number of a decision were expected")
    except OSError as error:
        code = error.errno or errno.EIO
        raise JobFailed(code, f"record {path}: {os.strerror(code)}: {reason}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        wrong = f"record {path} is not one of the highest decision ({error}): {reason}"
        raise JobFailed(errno.EBADMSG, wrong) from None
    return incarnation, number
