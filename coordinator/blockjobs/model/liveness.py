"""State of a host's two workers, and the state of the host derived from both.  Pure.

A host is up when both workers beat.  While the state of a worker is unknown, the last judgement of the host stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class WorkerName(StrEnum):
    """A worker of a host, by the value of ``blockjobs worker --queue``."""

    STEPS = "steps"
    COPY = "copy"


class Word(StrEnum):
    """The state of one worker.  ``UNSURE``: the worker has just begun to beat, or has ended long ago."""

    UP = "up"
    DOWN = "down"
    LEFT = "left"
    UNSURE = "unsure"


class Absence(NamedTuple):
    """An absent worker of a host: ``DOWN`` or ``LEFT``, and the time of that judgement (ms)."""

    worker: WorkerName
    word: Word
    since: int


def judge_worker(*, says: str, beaten: bool, silent: bool, moved: bool, was_there: bool) -> Word:
    """Judge the state of one worker.

    ``says``: the last word of the worker, "here" or "left".  ``beaten``: at least one beat is on record.  ``silent``:
    the observer saw the counter stand still for too long.  ``moved``: the observer saw the counter move.
    ``was_there``: the worker was not judged absent so far.
    """
    if says == "left":
        return Word.LEFT
    if silent:
        return Word.DOWN
    return Word.UP if beaten and (moved or was_there) else Word.UNSURE


def judge_host(words: Mapping[WorkerName, Word]) -> str | None:
    """``up``, ``down`` or ``left``; None while the state of a worker is unknown."""
    found = set(words.values())
    if Word.UNSURE in found:
        return None
    return str(found.pop()) if len(found) == 1 else "down"


_SAID: Final = {Word.DOWN: "does not beat", Word.LEFT: "was stopped"}


def describe_absence(absence: Absence) -> str:
    """The absence as a clause, such as ``its copy worker does not beat``."""
    return f"its {absence.worker} worker {_SAID[absence.word]}"


def lone_absence(absent: tuple[Absence, ...]) -> str:
    """The absence as a clause if exactly one worker is absent; "" otherwise."""
    return describe_absence(absent[0]) if len(absent) == 1 else ""


class WorkerProcess(NamedTuple):
    """One worker process, unique over time: ``drawn`` is a random name, made at the start of the process.

    ``start``: seconds from the boot of the machine to the start of the process.  ``namespace``: the namespace of
    ``pid``.
    """

    drawn: str
    pid: int
    start: float
    namespace: int
    node: str

    @property
    def text(self) -> str:
        """The text form, as stored in Redis."""
        return " ".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> WorkerProcess | None:
        """The process named by a text; None for a text without a process, as earlier versions wrote."""
        try:
            drawn, pid, start, namespace, node = text.split(" ", 4)
            return cls(drawn, int(pid), float(start), int(namespace), node)
        except ValueError:
            return None
