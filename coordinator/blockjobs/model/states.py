"""The life of a job: QEMU's eleven statuses, the verbs, and the legal moves and verbs of each status.

The two tables below are the only source of these rules (QEMU 11.0, ``job.c``, ``JobSTT`` and ``JobVerbTable``).  Lua
scripts receive the tables from Python, and contain no rule of their own.  An illegal move is a bug of this project; an
illegal verb is the user's mistake.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """The status of a job; the words are QEMU's ``JobStatus``."""

    UNDEFINED = "undefined"  # staged by a client, not published yet: invisible
    CREATED = "created"  # published; its transaction opens and cuts
    RUNNING = "running"  # waits for a slot, or copies
    PAUSED = "paused"
    READY = "ready"
    STANDBY = "standby"  # paused while ready
    WAITING = "waiting"  # the copy is done and durable; waits for the other members
    PENDING = "pending"  # all members are done; waits for finalize, prepares, commits
    ABORTING = "aborting"
    CONCLUDED = "concluded"
    NULL = "null"  # dismissed; the record is gone


class Verb(StrEnum):
    """A verb that a user may apply to a job; the words are QEMU's ``JobVerb``."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    SET_SPEED = "set-speed"
    COMPLETE = "complete"
    FINALIZE = "finalize"
    DISMISS = "dismiss"
    CHANGE = "change"


_MOVES: Final = """
  U  C R P Y S W D X E N
U .  1 . . . . . . . . .
C .  . 1 . . . . . 1 . 1
R .  . . 1 1 . 1 . 1 . .
P .  . 1 . . . . . . . .
Y .  . . . . 1 1 . 1 . .
S .  . . . 1 . . . . . .
W .  . . . . . . 1 1 . .
D .  . . . . . . . 1 1 .
X .  . . . . . . . 1 1 .
E .  . . . . . . . . . 1
N .  . . . . . . . . . .
"""
_VERBS: Final = """
           U C R P Y S W D X E N
cancel     . 1 1 1 1 1 1 1 . . .
pause      . 1 1 1 1 1 . . . . .
resume     . 1 1 1 1 1 . . . . .
set-speed  . 1 1 1 1 1 . . . . .
complete   . . . . 1 1 . . . . .
finalize   . . . . . . . 1 . . .
dismiss    . . . . . . . . . 1 .
change     . 1 1 1 1 1 . . . . .
"""


def _parse_status_table(table: str) -> dict[str, frozenset[Status]]:
    """Row name -> the statuses with a 1 in their column."""
    _, *rows = (line.split() for line in table.strip().splitlines())
    return {
        name: frozenset(status for status, cell in zip(Status, cells, strict=True) if cell == "1")
        for name, *cells in rows
    }


MOVES: Final[dict[Status, frozenset[Status]]] = dict(zip(Status, _parse_status_table(_MOVES).values(), strict=True))
ACCEPTS: Final[dict[Verb, frozenset[Status]]] = {Verb(name): row for name, row in _parse_status_table(_VERBS).items()}

TERMINAL: Final = frozenset({Status.CONCLUDED, Status.NULL})
STARTED: Final = frozenset({Status.RUNNING, Status.PAUSED, Status.READY, Status.STANDBY})


def statuses_leading_to(to: Status) -> list[Status]:
    """Every status with an edge to ``to``; passed to the Lua scripts as the accepted statuses."""
    return [status for status, targets in MOVES.items() if to in targets]


def statuses_accepting(verb: Verb) -> list[Status]:
    """Every status that accepts ``verb``; passed to the verb's Lua script."""
    return [status for status in Status if status in ACCEPTS[verb]]
