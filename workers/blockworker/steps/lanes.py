"""The lanes of a host: errands are handed in and never waited for; a separate process does the errand.

A thread of ours serves every process: the thread sends errands and waits for answers, on a socket, which cannot hang.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from blockjobs.model.hanging import HangingPath
from blockworker.steps.board import Errand, ErrandBoard
from blockworker.steps.forker import ForkerGone
from blockworker.system.standstill import StandingCall, Watch
from blockworker.system.threads import vital_thread

log = logging.getLogger(__name__)

PATIENCE: Final = 10.0  # seconds of a call before the path counts as hanging
IDLE: Final = 30.0  # seconds for which a process without an errand is kept
YOUNG: Final = 1.0  # seconds during which an errand is not examined


class Runner(Protocol):
    """A process, or a stand-in, that does errands, one by one."""

    pid: int

    def run(self, kind: str, words: object) -> tuple[Any, bool]:
        """Do an errand; return its result, and whether another errand may follow. Raises ForkerGone."""

    def close(self) -> None: ...


@dataclass
class _Underway:
    errand: Errand
    pid: int
    watch: Watch
    began: float = field(default_factory=time.monotonic)
    standing: StandingCall | None = None


class Lanes:
    """Lanes of a host. ``start`` makes a runner; ``point_of``: mount point of a path; ``patience``: as ``PATIENCE``."""

    def __init__(
        self,
        start: Callable[[], Runner],
        point_of: Callable[[str], str],
        *,
        board: ErrandBoard | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._start, self._point_of, self._patience = start, point_of, patience
        self._board = board or ErrandBoard()
        self._state = threading.Condition()
        self._starting = threading.Lock()
        self._begun: list[Errand] = []  # taken from the board, for the next server that is free
        self._free = 0  # servers that wait for an errand
        self._coming = 0  # servers that were started, and have not waited yet
        self._underway: dict[tuple[str, ...], _Underway] = {}
        self._leaving: dict[int, _Underway] = {}  # processes that gave up an errand and cannot end
        self._closed = False

    def hand(self, errand: Errand) -> bool:
        """Queue an errand; return False if the same errand waits already, or the lanes are closed."""
        with self._state:
            if self._closed or not self._board.put(errand):
                return False
            self._begin()
            return True

    def look(self) -> None:
        """Notice hanging and outdated errands; to be called about once a second."""
        with self._state:
            watched = [each for each in self._underway.values() if time.monotonic() - each.began >= YOUNG]
            watched += self._leaving.values()
        found = {id(each): next(iter(each.watch.look([each.pid])), None) for each in watched}
        with self._state:
            for each in watched:
                each.standing = found[id(each)]
            self._leaving = {pid: each for pid, each in self._leaving.items() if each.standing is not None}
            late = self._board.expire(time.monotonic())
            self._begin()
        for errand in late:
            _deliver_result(errand, None)

    def hanging(self) -> list[HangingPath]:
        """The paths that hang now, the longest first."""
        with self._state:
            every = [(each.standing, each.errand) for each in (*self._underway.values(), *self._leaving.values())]
        now = time.time()
        found = [
            HangingPath(
                path=standing.path,
                point=self._point_of(standing.path),
                since=now - standing.seconds,
                about=errand.about,
                transaction=str(errand.words.get("txn", "")),
            )
            for standing, errand in every
            if standing is not None
        ]
        return sorted(found, key=lambda hanging: hanging.since)

    def blamed(self, lane: Iterable[str]) -> str:
        """The hanging path on some of these file systems; "" if none hangs."""
        points = set(lane)
        return next((each.path for each in self.hanging() if each.point in points), "")

    def close(self, patience: float) -> None:
        """Accept nothing more; wait at most ``patience`` seconds for errands under way, but not for hanging ones."""
        with self._state:
            self._closed = True
            for errand in self._board.waiting():
                log.info("%s is not begun: this worker ends", errand.about or errand.kind)
            self._state.notify_all()
            self._state.wait_for(
                lambda: all(each.standing is not None for each in self._underway.values()), timeout=patience
            )

    def _begin(self) -> None:
        """Begin the errands that may begin; under the lock."""
        hanging = {
            key: self._point_of(each.standing.path) for key, each in self._underway.items() if each.standing is not None
        }
        while not self._closed and (errand := self._board.take(hanging)) is not None:
            self._begun.append(errand)
        if self._begun:
            self._state.notify_all()
        self._man()

    def _man(self) -> None:
        """Have a server for every begun errand; if no thread can be made, the next look tries again."""
        while len(self._begun) > self._free + self._coming:
            try:
                vital_thread(self._serve, "errands").start()
            except RuntimeError as error:
                log.error("%d errands wait: %s", len(self._begun), error)
                return
            self._coming += 1

    def _serve(self) -> None:
        """Do errand after errand in one process, until none came for a while."""
        with self._state:
            self._coming -= 1
        runner: Runner | None = None
        while (errand := self._next()) is not None:
            value, stays = None, False
            try:
                if runner is None:
                    with self._starting:
                        runner = self._start()
                with self._state:
                    self._underway[errand.key] = _Underway(errand, runner.pid, Watch(self._patience))
                value, stays = runner.run(errand.kind, errand.words)
            except ForkerGone as gone:
                if not self._closed:
                    log.warning("%s: %s; it is asked for again", errand.about or errand.kind, gone)
            except Exception:  # after any error, the errand is over, and its lane goes on
                log.exception("%s: an error nobody expected", errand.about or errand.kind)
            self._over(errand, leaves=not stays)
            _deliver_result(errand, value)
            with self._state:
                self._begin()
            if runner is not None and not stays:
                runner.close()
                runner = None
        if runner is not None:
            runner.close()

    def _over(self, errand: Errand, *, leaves: bool) -> None:
        with self._state:
            self._board.end(errand)
            over = self._underway.pop(errand.key, None)
            if over is not None and leaves and over.standing is not None:
                self._leaving[over.pid] = over
            self._state.notify_all()

    def _next(self) -> Errand | None:
        with self._state:
            self._free += 1
            self._state.wait_for(lambda: self._begun or self._closed, timeout=IDLE)
            self._free -= 1
            return self._begun.pop(0) if self._begun else None


def _deliver_result(errand: Errand, value: Any) -> None:
    try:
        errand.done(value)
    except Exception:  # the error belongs to the receiver of the result, and the lane has to go on
        log.exception("%s: its result could not be used", errand.about or errand.kind)
