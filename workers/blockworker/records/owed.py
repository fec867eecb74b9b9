"""Aborts that could not reach a write root on a missing disk: noted, and carried out once the disk is back.

A member without an answer to OPEN has mostly made no file, and the run does not wait for the disk.  If a worker
died in the middle of the OPEN, the disk still has a journal; ``owed.json`` in the host's state directory records the
decision about the journal.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockworker.host import state
from blockworker.host.config import HostConfig

NAME: Final = "owed.json"
VERSION: Final = 1

Owed = dict[str, dict[str, int]]  # write root -> transaction -> number of the decision to abort it


def note_owed_abort(config: HostConfig, root: str, transaction: str, number: int) -> None:
    """Note durably that a transaction is aborted and that this root could not be read.

    Raises:
        JobFailed: this host has no directory for the note, or the note cannot be written.
    """

    def add(owed: Owed) -> None:
        owed.setdefault(root, {}).setdefault(transaction, number)

    _change_owed(config, add)


def strike_owed_abort(config: HostConfig, root: str, transaction: str) -> None:
    """Remove the note: no file of this transaction is left beneath this root."""

    def drop(owed: Owed) -> None:
        owed.get(root, {}).pop(transaction, None)

    _change_owed(config, drop)


def read_owed_aborts(config: HostConfig) -> Owed:
    """The noted aborts."""
    place = state.state_directory_of(config)
    if place is None:
        return {}
    text = state.read_record(place, NAME)
    if text is None:
        return {}
    try:
        owed: dict[str, Any] = json.loads(text)["owed"]
        return {root: {txn: int(number) for txn, number in txns.items()} for root, txns in owed.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JobFailed(errno.EBADMSG, f"record {place.path}/{NAME} is not one of version {VERSION}: {error}") from None


def _change_owed(config: HostConfig, change: Callable[[Owed], None]) -> None:
    place = state.state_directory_of(config)
    if place is None:
        raise JobFailed(errno.EACCES, f"host {config.name} has no state directory in which to note what it owes")
    with state.state_errors_as_failure(place.path), state.locked_record(place, NAME):
        owed = read_owed_aborts(config)
        change(owed)
        owed = {root: txns for root, txns in owed.items() if txns}
        content = json.dumps({"version": VERSION, "owed": owed}, indent=1, sort_keys=True)
        state.write_record(place, NAME, content.encode() + b"\n")
