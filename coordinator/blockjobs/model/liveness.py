"""Which of a host's two workers is there, and what follows for the host.  Pure.

A host is up when both of its workers beat.  As long as nobody can say of one of them, the host stays as it was judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class WorkerName(StrEnum):
    """One of a host's two workers, as ``blockjobs worker --queue`` names it."""

    STEPS = "steps"
    COPY = "copy"


class Word(StrEnum):
    """What is known of one worker.  ``UNSURE``: it may have just begun to beat, or may have ended long ago."""

    UP = "up"
    DOWN = "down"
    LEFT = "left"
    UNSURE = "unsure"


class Absence(NamedTuple):
    """One worker of a host that is not there: ``DOWN`` or ``LEFT``, and since when it was judged so (ms)."""

    worker: WorkerName
    word: Word
    since: int


def judge_worker(*, says: str, beaten: bool, silent: bool, moved: bool, was_there: bool) -> Word:
    """What is known of one worker.

    ``says``: its last word, "here" or "left".  ``beaten``: it ever beat.  ``silent``: its counter stood still for too
    long under the observer's eyes.  ``moved``: its counter was seen to move.  ``was_there``: nobody has judged yet that
    it is not there.
    """
    if says == "left":
        return Word.LEFT
    if silent:
        return Word.DOWN
    return Word.UP if beaten and (moved or was_there) else Word.UNSURE


def judge_host(words: Mapping[WorkerName, Word]) -> str | None:
    """``up``, ``down`` or ``left``; None: nobody can say yet."""
    found = set(words.values())
    if Word.UNSURE in found:
        return None
    return str(found.pop()) if len(found) == 1 else "down"


_SAID: Final = {Word.DOWN: "does not beat", Word.LEFT: "was stopped"}


def describe_absence(absence: Absence) -> str:
    """``its copy worker does not beat``."""
    return f"its {absence.worker} worker {_SAID[absence.word]}"


def lone_absence(absent: tuple[Absence, ...]) -> str:
    """The same of the one worker that is missing; "" where both are, or none is."""
    return describe_absence(absent[0]) if len(absent) == 1 else ""


class WorkerProcess(NamedTuple):
    """One process among all that ever were: drawn at its start, and where it is to be found.

    ``start``: its start in seconds since the boot of its machine.  ``namespace``: the one that its pid is of.
    """

    drawn: str
    pid: int
    start: float
    namespace: int
    node: str

    @property
    def text(self) -> str:
        """As Redis keeps it."""
        return " ".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> WorkerProcess | None:
        """The process that a text names; None: it names none, as those of earlier versions."""
        try:
            drawn, pid, start, namespace, node = text.split(" ", 4)
            return cls(drawn, int(pid), float(start), int(namespace), node)
        except ValueError:
            return None
